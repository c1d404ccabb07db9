//! Background tasks: at most one of a kind at a time, and on a runtime that runs it.
//!
//! A task ends with its runtime. A runtime of one thread runs its tasks only within `block_on`: if it is merely kept alive, its
//! tasks never run again, though they haven't finished.
//!
//! A task that ends because it has nothing left to do must not miss work that comes at that moment. So it decides to end in
//! [`Background::finish`], under the lock that starts tasks.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::runtime::{Handle, Id};
use tokio_util::task::AbortOnDropHandle;

/// A task that isn't polled within this time after it was woken counts as not driven.
const LONGEST_WAKE: Duration = Duration::from_millis(50);

/// The only task of its kind. It is aborted when this is dropped.
#[derive(Default)]
pub(crate) struct Background {
    running: Mutex<Option<Running>>,
}

struct Running {
    task: AbortOnDropHandle<()>,
    runtime: Id,
    life: Arc<Life>,
    /// When the task was woken to find out whether it is driven, and how often it had been polled by then.
    woken: Option<(Instant, u64)>,
}

impl Background {
    /// Starts the task on the current runtime, unless a task exists and its runtime drives it. Outside of a runtime it is left
    /// to the next call.
    pub(crate) fn ensure<F: Future<Output = ()> + Send + 'static>(&self, task: impl FnOnce() -> F) {
        let Ok(here) = Handle::try_current() else { return };
        let mut running = self.running.lock();
        if !running.as_mut().is_some_and(|running| running.is_driven(here.id())) {
            *running = Some(Running::start(&here, task()));
        }
    }

    /// Called by the task when it has nothing left to do. If it `is_done`, the next [`ensure`](Self::ensure) starts another task;
    /// otherwise it must go on. A task that was replaced as not driven may end its successor, which then is done too.
    pub(crate) fn finish(&self, is_done: impl FnOnce() -> bool) -> bool {
        let mut running = self.running.lock();
        let is_done = is_done();
        if is_done {
            *running = None;
        }
        is_done
    }
}

impl Running {
    fn start(here: &Handle, task: impl Future<Output = ()> + Send + 'static) -> Self {
        let life = Arc::<Life>::default();
        let task = AbortOnDropHandle::new(here.spawn(life.of(task)));
        Self { task, runtime: here.id(), life, woken: None }
    }

    /// Whether the task is driven, as seen from the runtime `here`. For a task on another runtime, the first call wakes it, and
    /// a later call checks whether it was polled since.
    fn is_driven(&mut self, here: Id) -> bool {
        if self.task.is_finished() {
            return false;
        }
        if self.runtime == here {
            return true;
        }
        match self.woken {
            Some((_, polls)) if self.life.has_run_since(polls) => self.woken = None,
            Some((when, _)) => return when.elapsed() < LONGEST_WAKE,
            None => self.woken = Some((Instant::now(), self.life.wake())),
        }
        true
    }
}

/// Counts the polls of one task, and can wake it.
#[derive(Debug, Default)]
pub(crate) struct Life {
    polls: AtomicU64,
    waker: AtomicWaker,
}

impl Life {
    /// Counts the polls of a future.
    pub(crate) fn of<F: Future<Output = ()>>(self: &Arc<Self>, future: F) -> impl Future<Output = ()> + use<F> {
        let (life, mut future) = (self.clone(), Box::pin(future));
        poll_fn(move |cx| {
            life.waker.register(cx.waker());
            life.polls.fetch_add(1, Ordering::AcqRel);
            future.as_mut().poll(cx)
        })
    }

    /// Wakes the task, and returns whether it was polled within [`LONGEST_WAKE`].
    pub(crate) async fn responds(&self) -> bool {
        let polls = self.wake();
        tokio::time::sleep(LONGEST_WAKE).await;
        self.has_run_since(polls)
    }

    fn wake(&self) -> u64 {
        let polls = self.polls.load(Ordering::Acquire);
        self.waker.wake();
        polls
    }

    fn has_run_since(&self, polls: u64) -> bool {
        self.polls.load(Ordering::Acquire) != polls
    }
}
