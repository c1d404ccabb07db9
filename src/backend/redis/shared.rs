//! The connection to one server that all steps but updates share, as its callers see it: they queue commands and wait for the
//! replies.
//!
//! ```text
//!              a command              connected and greeted
//!   absent ───────────────▶ connecting ─────────────────────▶ connected: epoch n
//!     ▲ ▲                     │    ▲                             │
//!     │ └─────────────────────┘    │ commands wait, or a spare   │  the socket broke, or brought garbage
//!     │   failed: waiters get the  │ has answered meanwhile      │  the server is a replica: ROLE, READONLY
//!     │   error, and so do callers ├─────────────────────────────┤  it is silent, and a spare has answered
//!     │   within PAUSE             │                             │  sentinels name another, run_id differs
//!     └────────────────────────────┴──────── epoch n ends ◀──────┘  its runtime ended, or is not driven
//!                 nobody waits
//! ```
//!
//! One lock guards everything that callers and the task share, [`State`]. A command's time runs from when it goes out, in ticks of
//! the task: see `connection`.

mod connection;
mod epoch;
mod queue;
mod task;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};
use std::{array, mem};

use parking_lot::{Mutex, MutexGuard};
use redis::{ErrorKind, RedisError, RedisResult};
use tokio::runtime::{self, Handle};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

pub(super) use self::epoch::Epoch;
use self::epoch::Seen;
pub(super) use self::queue::{Encode, Request};
use self::queue::{Queue, ReplyTo};
use super::connect::Target;
use super::errors::{connection_lost, is_lost, is_worth_another_attempt, runtime_ended};
use super::resp::{Reply, encode};
use crate::backend::builder::Settings;
use crate::backend::takeover::Backends;
use crate::background::Life;

/// After a failed attempt to connect, callers get its error for this long before another attempt is made.
const PAUSE: Duration = Duration::from_millis(50);
/// The number of ticks in `operation_timeout`. A tick that comes late, because this process stood still, counts once.
const TICKS: u32 = 10;

pub(in crate::backend) struct Shared {
    target: Target,
    pub(super) settings: Settings,
    tick: Duration,
    state: Mutex<State>,
    /// How many epochs have ended, which is the number of the current one. Read without the lock by each write.
    ended: AtomicU64,
    /// Counts the changes after which entries may be at another server, over all servers of a cluster.
    changes: Arc<AtomicU64>,
    /// To be told when another server has taken the place of the one of the epoch before.
    backends: Arc<Backends>,
}

#[derive(Default)]
struct State {
    queue: Queue,
    phase: Phase,
    /// The number of the latest task that drives a connection. An older task finds out by it that it was given up.
    task: u64,
    /// The runtime of the latest task, and its signs of life.
    runtime: Option<runtime::Id>,
    life: Arc<Life>,
    /// Set while connected.
    epoch: Option<Epoch>,
    /// The server of this epoch, or of the last one.
    seen: Option<Seen>,
    /// When and why the last attempt to connect failed.
    failed: Option<(Instant, RedisError)>,
    /// Whether the warning about a needless password was logged.
    has_warned: bool,
}

/// Whether a task drives the connection, and whether a new command has to wake it.
///
/// ```text
///          a command starts one               the queue is empty
///   Absent ────────────────────▶ Awake ────────────────────────────▶ Asleep
///     ▲                          │   ▲                                │  │
///     │  it has nothing to do,   │   │  a command, which calls the    │  │
///     │  or has ended            │   │  waker after unlocking         │  │
///     ├──────────────────────────┘   └────────────────────────────────┘  │
///     └───────────────────────── it is given up ─────────────────────────┘
/// ```
///
/// It changes only under the lock of the queue. So a command is never queued between a task's last look at the queue and
/// its sleep, and it wakes a task at most once.
#[derive(Default)]
enum Phase {
    #[default]
    Absent,
    Awake,
    Asleep(Waker),
}

/// A task's right to drive the connection. It is dropped with the task, also when a runtime drops that.
struct Driver {
    shared: Arc<Shared>,
    task: u64,
}

impl Driver {
    /// The locked state, unless the task was given up.
    fn state(&self) -> Option<MutexGuard<'_, State>> {
        Some(self.shared.state.lock()).filter(|state| state.task == self.task)
    }
}

impl Shared {
    pub(super) fn new(
        target: Target,
        settings: Settings,
        changes: Arc<AtomicU64>,
        backends: Arc<Backends>,
    ) -> Arc<Self> {
        const SHORTEST_TICK: Duration = Duration::from_millis(1);
        Arc::new(Self {
            target,
            settings,
            tick: (settings.operation_timeout / TICKS).max(SHORTEST_TICK),
            state: Mutex::default(),
            ended: AtomicU64::new(0),
            changes,
            backends,
        })
    }

    /// Sends a request's commands one right after the other, and returns a reply to each.
    pub(super) async fn run<const N: usize>(
        self: &Arc<Self>,
        request: &Request<'_>,
    ) -> RedisResult<[RedisResult<Reply>; N]> {
        let began = Instant::now();
        match self.try_run(request, request.limit).await {
            // Boxed, so that the future of a hit stays small.
            Err(error) if is_worth_another_attempt(&error) => Box::pin(self.run_again(request, began, error)).await,
            replies => replies,
        }
    }

    /// Sends one command that may be carried out twice.
    pub(super) async fn ask(self: &Arc<Self>, limit: Duration, command: &[&[u8]]) -> RedisResult<Reply> {
        let [reply] = self.run(&Request::new(limit, &|_, out| encode(out, command))).await?;
        reply
    }

    /// Sends a request again after its connection was lost, within the time that is left. So a connection that was cut while
    /// idle, which only its next use shows, is no reason to fail.
    async fn run_again<const N: usize>(
        self: &Arc<Self>,
        request: &Request<'_>,
        began: Instant,
        mut error: RedisError,
    ) -> RedisResult<[RedisResult<Reply>; N]> {
        let mut attempts = request.attempts;
        while attempts > 1 && began.elapsed() < request.limit {
            if is_lost(&error) {
                attempts -= 1;
            } else {
                // The end of a runtime is not the server's failure, and doesn't count. Yield, since a runtime that is shutting down
                // drops every task that is started on it: this loop would keep its thread busy until the limit.
                tokio::task::yield_now().await;
            }
            match self.try_run(request, request.limit.saturating_sub(began.elapsed())).await {
                Err(next) if is_worth_another_attempt(&next) => error = next,
                replies => return replies,
            }
        }
        Err(error)
    }

    async fn try_run<const N: usize>(
        self: &Arc<Self>,
        request: &Request<'_>,
        limit: Duration,
    ) -> RedisResult<[RedisResult<Reply>; N]> {
        let epoch = self.ended.load(Ordering::Acquire);
        let mut senders = [const { None }; N];
        let receivers: [_; N] = array::from_fn(|at| {
            let (sender, receiver) = oneshot::channel();
            senders[at] = Some(sender);
            receiver
        });
        let other_task = self.push(request, limit, N, N, |at| {
            ReplyTo::One(senders[at].take().expect("there is a sender for each command"))
        })?;
        let received = async {
            let mut replies = [const { None }; N];
            for (reply, receiver) in replies.iter_mut().zip(receivers) {
                let received = receiver.await.unwrap_or_else(|_task_ended| Err(runtime_ended()));
                *reply = Some(unless_lost(received)?);
            }
            if request.is_write && self.ended.load(Ordering::Acquire) != epoch {
                // The next connection may lead to a server that has not seen this write, and other callers may have read over
                // it before this reply was handed out. So the write must not be reported as done.
                return Err(connection_lost());
            }
            Ok(replies.map(|reply| reply.unwrap_or_else(|| Err(runtime_ended()))))
        };
        match other_task {
            None => received.await,
            Some(task) => Box::pin(self.from_other_runtime(task, limit, received)).await,
        }
    }

    /// Like [`run`](Self::run), for any number of unrelated `groups` of commands, and without sending them again. `each` gets
    /// every reply as it comes, with its command's number: collected first, the replies of a large batch would push each other
    /// out of the CPU's caches.
    pub(super) async fn run_many(
        self: &Arc<Self>,
        request: &Request<'_>,
        groups: usize,
        group_size: usize,
        mut each: impl FnMut(usize, RedisResult<Reply>),
    ) -> RedisResult<()> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let other_task =
            self.push(request, request.limit, groups * group_size, group_size, |at| ReplyTo::Many(sender.clone(), at))?;
        drop(sender);
        let received = async {
            let mut lost = None;
            while let Some((at, reply)) = receiver.recv().await {
                match unless_lost(reply) {
                    Ok(reply) => each(at, reply),
                    // A timeout is the server's failure, and is kept: after a lost connection the caller sends again.
                    Err(error) if lost.as_ref().is_none_or(is_worth_another_attempt) => lost = Some(error),
                    Err(_) => {}
                }
            }
            lost.map_or(Ok(()), Err)
        };
        match other_task {
            None => received.await,
            Some(task) => Box::pin(self.from_other_runtime(task, request.limit, received)).await,
        }
    }

    /// Queues a request's commands with where each reply goes, and starts or wakes the task. Returns the task's number if it
    /// runs on another runtime than the caller.
    fn push(
        self: &Arc<Self>,
        request: &Request<'_>,
        limit: Duration,
        count: usize,
        group_size: usize,
        reply_to: impl FnMut(usize) -> ReplyTo,
    ) -> RedisResult<Option<u64>> {
        let no_runtime = |_| RedisError::from((ErrorKind::InvalidClientConfig, "there is no tokio runtime here"));
        let runtime = Handle::try_current().map_err(no_runtime)?.id();
        let limit = self.ticks(limit);
        let mut state = self.state.lock();
        if let (Phase::Absent, Some((when, error))) = (&state.phase, &state.failed)
            && when.elapsed() < PAUSE
        {
            return Err(error.clone());
        }
        state.queue.push(request, limit, count, group_size, reply_to);
        let other_task = (state.runtime != Some(runtime)).then_some(state.task);
        match mem::replace(&mut state.phase, Phase::Awake) {
            Phase::Absent => {
                self.start(state, runtime);
                Ok(None)
            }
            Phase::Awake => Ok(other_task),
            Phase::Asleep(waker) => {
                // Unlock first: the task takes the lock as soon as it runs.
                drop(state);
                waker.wake();
                Ok(other_task)
            }
        }
    }

    fn ticks(&self, limit: Duration) -> u32 {
        if limit == self.settings.operation_timeout && self.tick * TICKS == limit {
            return TICKS;
        }
        u32::try_from(limit.as_nanos().div_ceil(self.tick.as_nanos())).unwrap_or(u32::MAX / 2)
    }

    /// Waits for replies that come from a task of another runtime, and gives that task up once it doesn't run: a runtime of
    /// one thread may be alive without anybody driving it.
    async fn from_other_runtime<R>(
        self: &Arc<Self>,
        task: u64,
        limit: Duration,
        replies: impl Future<Output = RedisResult<R>>,
    ) -> RedisResult<R> {
        let mut replies = pin!(replies);
        loop {
            // After half of the limit there is time for another attempt.
            if let Ok(replies) = timeout(limit / 2, &mut replies).await {
                return replies;
            }
            let life = Some(self.state.lock()).filter(|state| state.task == task).map(|state| state.life.clone());
            let Some(life) = life else { return Err(runtime_ended()) };
            if !life.responds().await {
                // The waiting callers send again, each from its own runtime: any one of those may stop being driven too.
                self.end_task(task, &connection_lost());
                return Err(runtime_ended());
            }
        }
    }
}

/// Makes a lost connection the outer error: there is no reply to any further command of the request either.
fn unless_lost(reply: RedisResult<Reply>) -> RedisResult<RedisResult<Reply>> {
    match reply {
        Err(error) if error.is_io_error() => Err(error),
        reply => Ok(reply),
    }
}
