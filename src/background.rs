//! Background tasks: at most one of a kind, and one that is driven.
//!
//! A task ends with its runtime. And a runtime of one thread runs only within `block_on`: a task on one that is merely kept
//! stands still for good, and looks as if it were busy.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::runtime::{Handle, Id};

use crate::read::AbortOnDrop;

/// How long a runtime may take to poll a task that was woken.
pub(crate) const PATIENCE: Duration = Duration::from_millis(50);

/// The only task of its kind. It ends when this is dropped.
#[derive(Default)]
pub(crate) struct Background {
    running: Mutex<Option<Running>>,
}

struct Running {
    task: AbortOnDrop<()>,
    runtime: Id,
    life: Arc<Life>,
    /// When the task was last woken to see whether it is driven, and how often it had been polled then.
    woken: Option<(Instant, u64)>,
}

impl Background {
    /// Starts the task on the current runtime, unless it runs already, and is driven where it runs. Outside of a runtime the next
    /// call does that.
    pub(crate) fn ensure<F: Future<Output = ()> + Send + 'static>(&self, task: impl FnOnce() -> F) {
        let Ok(here) = Handle::try_current() else { return };
        let mut running = self.running.lock();
        if !running.as_mut().is_some_and(|running| running.is_driven(here.id())) {
            *running = Some(Running::start(&here, task()));
        }
    }

    /// Starts the task in place of one that is about to end.
    pub(crate) fn replace(&self, task: impl Future<Output = ()> + Send + 'static) {
        let Ok(here) = Handle::try_current() else { return };
        let started = Running::start(&here, task);
        *self.running.lock() = Some(started);
    }
}

impl Running {
    fn start(here: &Handle, task: impl Future<Output = ()> + Send + 'static) -> Self {
        let life = Arc::<Life>::default();
        let task = AbortOnDrop(here.spawn(life.of(task)));
        Self { task, runtime: here.id(), life, woken: None }
    }

    /// Looks from the runtime `here`. That a task of another one is not driven shows when it is asked a second time.
    fn is_driven(&mut self, here: Id) -> bool {
        if self.task.0.is_finished() {
            return false;
        }
        if self.runtime == here {
            return true;
        }
        match self.woken {
            Some((_, polls)) if self.life.has_run_since(polls) => self.woken = None,
            Some((when, _)) => return when.elapsed() < PATIENCE,
            None => self.woken = Some((Instant::now(), self.life.wake())),
        }
        true
    }
}

/// The signs of life of one task.
#[derive(Debug, Default)]
pub(crate) struct Life {
    polls: AtomicU64,
    waker: AtomicWaker,
}

impl Life {
    /// The same future, with signs of life.
    pub(crate) fn of(self: &Arc<Self>, future: impl Future<Output = ()> + Send + 'static) -> Alive {
        Alive { life: self.clone(), future: Box::pin(future) }
    }

    /// Wakes the task, and returns whether it has run within [`PATIENCE`].
    pub(crate) async fn responds(&self) -> bool {
        let polls = self.wake();
        tokio::time::sleep(PATIENCE).await;
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

/// A future that shows signs of life.
pub(crate) struct Alive {
    life: Arc<Life>,
    future: BoxFuture<'static, ()>,
}

impl Future for Alive {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.life.waker.register(cx.waker());
        self.life.polls.fetch_add(1, Ordering::AcqRel);
        self.future.as_mut().poll(cx)
    }
}
