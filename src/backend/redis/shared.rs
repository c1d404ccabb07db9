//! The connection to one server that all steps but updates share: who waits for it, who drives it, and when it is replaced.
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
//! An *epoch* is the life of one such connection, to one endpoint. The exclusive connections of updates and the trackers are
//! made within an epoch, to its endpoint, and end with it: so what one of them writes is seen by what is read over the
//! shared connection. What is written over that itself is seen because it goes over the same socket.
//!
//! A command's time runs from when it goes out, in ticks of the connection's task: see `redis/connection.rs`.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use redis::{ErrorKind, RedisError, RedisResult};
use tokio::runtime::{self, Handle};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, timeout};

use super::connect::{Endpoint, Link, connect, connect_to};
use super::connection::{Connection, End};
use super::errors::{
    connection_lost, is_lost, is_of_replica, is_worth_another_attempt, not_answered, runtime_ended, too_busy,
};
use super::resp::{Reply, encode};
use super::sentinel::Sentinels;
use super::url::Address;
use crate::backend::Settings;
use crate::background::Life;
use crate::read::AbortOnDrop;

/// After an attempt to connect has failed, the next one isn't made for so long.
const PAUSE: Duration = Duration::from_millis(50);
/// A connection that has lived for less is no sign that the next one will last.
const SHORT_LIFE: Duration = Duration::from_secs(2);
/// A command's time is counted in so many ticks. A tick that comes late, because this process stood still, counts once.
const TICKS: u32 = 10;
/// The most times that a request is sent whose connection gets lost, or that an epoch is asked for.
const ATTEMPTS: u32 = 4;

/// Appends one of a request's commands, by its number.
pub(super) type Encode<'a> = dyn Fn(usize, &mut Vec<u8>) + Sync + 'a;

/// Commands to be sent together.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) encode: &'a Encode<'a>,
    /// How long the server may take to answer.
    limit: Duration,
    /// How often they may be sent, when their connection is lost.
    attempts: u32,
    /// Whether they go out one right after the other, with nothing in between.
    is_one_piece: bool,
    /// Whether they are a write, whose order matters: all of them are run again when one is sent elsewhere, or when the epoch has
    /// ended before the replies came.
    pub(super) is_write: bool,
}

impl<'a> Request<'a> {
    /// Commands that may be carried out twice.
    pub(super) fn new(limit: Duration, encode: &'a Encode<'a>) -> Self {
        Self { encode, limit, attempts: ATTEMPTS, is_one_piece: true, is_write: false }
    }

    /// Commands that must not be carried out twice.
    pub(super) fn once(limit: Duration, encode: &'a Encode<'a>) -> Self {
        Self { attempts: 1, ..Self::new(limit, encode) }
    }

    /// Unrelated commands: many of them need not go out together.
    pub(super) fn of_many(limit: Duration, encode: &'a Encode<'a>) -> Self {
        Self { is_one_piece: false, ..Self::once(limit, encode) }
    }

    /// The commands of a write.
    pub(super) fn of_write(limit: Duration, encode: &'a Encode<'a>) -> Self {
        Self { is_write: true, ..Self::new(limit, encode) }
    }

    /// The same with other commands.
    pub(super) fn with(self, encode: &'a Encode<'a>) -> Self {
        Self { encode, ..self }
    }
}

pub(super) struct Shared {
    target: Target,
    settings: Settings,
    tick: Duration,
    state: Mutex<State>,
    /// How many epochs have ended: the number of the current one.
    ended: AtomicU64,
    /// The same of all servers of a cluster.
    ended_of_all: Arc<AtomicU64>,
}

/// Where the connection goes.
pub(in crate::backend) enum Target {
    /// To the server at this address.
    Server(Arc<Address>),
    /// To the master that sentinels name.
    Master(Arc<Sentinels>),
}

/// A new connection, and the address that it was made by.
pub(super) struct Connected {
    pub(super) link: Link,
    pub(super) address: Arc<Address>,
}

/// The life of one shared connection.
#[derive(Clone)]
pub(super) struct Epoch {
    number: u64,
    pub(super) address: Arc<Address>,
    endpoint: Endpoint,
    run_id: Option<String>,
}

#[derive(Default)]
pub(super) struct State {
    /// Commands as they are sent; those until `taken` have been.
    unsent: Vec<u8>,
    taken: usize,
    /// Who waits for the replies to the commands that are left, in their order.
    waiting: VecDeque<Waiter>,
    pub(super) phase: Phase,
    /// Counts the tasks that drive connections. One that is not the latest has been given up.
    task: u64,
    /// The runtime of the latest task, and its signs of life.
    runtime: Option<runtime::Id>,
    life: Arc<Life>,
    /// There while connected.
    epoch: Option<Epoch>,
    /// When and why the last attempt to connect failed.
    failed: Option<(Instant, RedisError)>,
    /// Whether a warning about a needless password was logged.
    has_warned: bool,
    /// The time of commands that wait.
    pub(super) tick: u32,
    /// Whether there will be no more commands.
    closed: bool,
}

/// State of the task that drives the connection.
#[derive(Default)]
pub(super) enum Phase {
    /// There is none.
    #[default]
    Absent,
    /// It looks at the queue before it sleeps.
    Awake,
    /// Whoever adds a command wakes it.
    Asleep(Waker),
}

/// Who waits for a reply.
pub(super) struct Waiter {
    reply_to: ReplyTo,
    /// Length of the command.
    bytes: u32,
    /// The tick at which it was queued, and then sent.
    since: u32,
    /// How many ticks the server may take.
    limit: u32,
    /// Whether the next command belongs to the same request: they go out together.
    is_followed: bool,
}

enum ReplyTo {
    One(oneshot::Sender<RedisResult<Reply>>),
    /// One of many commands, with its number: all have one channel, or the memory of thousands would lie idle until their
    /// replies come.
    Many(mpsc::UnboundedSender<(usize, RedisResult<Reply>)>, usize),
}

impl Waiter {
    pub(super) fn answer(self, reply: RedisResult<Reply>) {
        // It fails when the caller is gone.
        match self.reply_to {
            ReplyTo::One(caller) => drop(caller.send(reply)),
            ReplyTo::Many(caller, at) => drop(caller.send((at, reply))),
        }
    }

    fn bytes(&self) -> usize {
        self.bytes as usize
    }

    pub(super) fn sent_at(self, now: u32) -> Self {
        Self { since: now, ..self }
    }

    pub(super) fn is_overdue(&self, now: u32) -> bool {
        // The tick in which it was sent had begun before.
        now.wrapping_sub(self.since) > self.limit
    }
}

impl Shared {
    pub(super) fn new(target: Target, settings: Settings, ended_of_all: Arc<AtomicU64>) -> Arc<Self> {
        const SHORTEST_TICK: Duration = Duration::from_millis(1);
        Arc::new(Self {
            target,
            settings,
            tick: (settings.operation_timeout / TICKS).max(SHORTEST_TICK),
            state: Mutex::default(),
            ended: AtomicU64::new(0),
            ended_of_all,
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

    /// Sends a request again whose connection was lost, within the time that is left: a connection that was dropped while idle
    /// is no reason to fail.
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
                // A runtime that is shutting down starts no task.
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
        let mut pending = [const { None }; N];
        let mut places = pending.iter_mut();
        let foreign = self.push(request, limit, N, |_at| {
            let (reply, receiver) = oneshot::channel();
            if let Some(place) = places.next() {
                *place = Some(receiver);
            }
            ReplyTo::One(reply)
        })?;
        let received = async {
            let mut received = [const { None }; N];
            for (received, pending) in received.iter_mut().zip(pending) {
                let reply = match pending {
                    Some(pending) => pending.await.unwrap_or_else(|_task_ended| Err(runtime_ended())),
                    None => Err(runtime_ended()),
                };
                *received = Some(unless_lost(reply)?);
            }
            if request.is_write && self.ended.load(Ordering::Acquire) != epoch {
                // Others may have read over the next connection before this one's reply was handed out.
                return Err(connection_lost());
            }
            Ok(received.map(|reply| reply.unwrap_or_else(|| Err(runtime_ended()))))
        };
        match foreign {
            None => received.await,
            Some(task) => Box::pin(self.received_from(task, limit, received)).await,
        }
    }

    /// Like [`run`](Self::run), for any number of commands, and without sending them again. `each` gets the replies as they come,
    /// with their commands' numbers: kept until the last one has come, they would fill the caches of the processor.
    pub(super) async fn run_many(
        self: &Arc<Self>,
        request: &Request<'_>,
        count: usize,
        mut each: impl FnMut(usize, RedisResult<Reply>),
    ) -> RedisResult<()> {
        let (replies, mut pending) = mpsc::unbounded_channel();
        let foreign = self.push(request, request.limit, count, |at| ReplyTo::Many(replies.clone(), at))?;
        drop(replies);
        let received = async {
            let mut lost = None;
            while let Some((at, reply)) = pending.recv().await {
                match unless_lost(reply) {
                    Ok(reply) => each(at, reply),
                    Err(error) if lost.as_ref().is_none_or(is_worth_another_attempt) => lost = Some(error),
                    Err(_) => {}
                }
            }
            lost.map_or(Ok(()), Err)
        };
        match foreign {
            None => received.await,
            Some(task) => Box::pin(self.received_from(task, request.limit, received)).await,
        }
    }

    /// Queues a request's commands, by their numbers, with where each reply goes. Returns the task that will bring them, if it belongs
    /// to another runtime than the caller.
    fn push(
        self: &Arc<Self>,
        request: &Request<'_>,
        limit: Duration,
        count: usize,
        mut reply_to: impl FnMut(usize) -> ReplyTo,
    ) -> RedisResult<Option<u64>> {
        let runtime = Handle::try_current().map_err(|_| no_runtime())?.id();
        let limit = self.ticks(limit);
        let mut state = self.state();
        if let (Phase::Absent, Some((when, error))) = (&state.phase, &state.failed)
            && when.elapsed() < PAUSE
        {
            return Err(error.clone());
        }
        for at in 0..count {
            let before = state.unsent.len();
            (request.encode)(at, &mut state.unsent);
            // No server takes a command of 4 GiB.
            let bytes = u32::try_from(state.unsent.len() - before).unwrap_or(u32::MAX);
            let since = state.tick;
            let is_followed = request.is_one_piece && at + 1 < count;
            state.waiting.push_back(Waiter { reply_to: reply_to(at), bytes, since, limit, is_followed });
        }
        let foreign = (state.runtime != Some(runtime)).then_some(state.task);
        match mem::replace(&mut state.phase, Phase::Awake) {
            Phase::Absent => {
                self.start(state, runtime);
                Ok(None)
            }
            Phase::Awake => Ok(foreign),
            Phase::Asleep(waker) => {
                drop(state);
                waker.wake();
                Ok(foreign)
            }
        }
    }

    fn ticks(&self, limit: Duration) -> u32 {
        if limit == self.settings.operation_timeout && self.tick * TICKS == limit {
            return TICKS;
        }
        u32::try_from(limit.as_nanos().div_ceil(self.tick.as_nanos())).unwrap_or(u32::MAX / 2)
    }

    /// Starts the task that connects and sends what is queued.
    fn start(self: &Arc<Self>, mut state: MutexGuard<'_, State>, runtime: runtime::Id) {
        state.task += 1;
        state.phase = Phase::Awake;
        state.runtime = Some(runtime);
        state.life = Arc::default();
        let (life, serving) = (state.life.clone(), Serving { shared: self.clone(), task: state.task });
        // A runtime that is shutting down drops the task at once, and that takes the lock.
        drop(state);
        tokio::spawn(life.of(serve(serving)));
    }

    /// Waits for replies that a task of another runtime brings: nobody may drive that.
    async fn received_from<R>(
        self: &Arc<Self>,
        task: u64,
        limit: Duration,
        replies: impl Future<Output = RedisResult<R>>,
    ) -> RedisResult<R> {
        let mut replies = std::pin::pin!(replies);
        loop {
            // Early enough for another attempt within the limit.
            if let Ok(replies) = timeout(limit / 2, &mut replies).await {
                return replies;
            }
            let life = Some(self.state()).filter(|state| state.task == task).map(|state| state.life.clone());
            let Some(life) = life else { return Err(runtime_ended()) };
            if !life.responds().await {
                // The waiting callers send again, each from its own runtime: any one of these may stop being driven.
                self.end_task(task, &connection_lost());
                return Err(runtime_ended());
            }
        }
    }

    /// The current epoch; connects if there is none.
    pub(super) async fn epoch(self: &Arc<Self>) -> RedisResult<Epoch> {
        for _ in 0..ATTEMPTS {
            if let Some(epoch) = &self.state().epoch {
                return Ok(epoch.clone());
            }
            let [_pong] =
                self.run(&Request::new(self.settings.connect_timeout, &|_, out| encode(out, &[b"PING"]))).await?;
        }
        Err(connection_lost())
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        self.settings.connect_timeout
    }

    pub(super) fn is_current(&self, epoch: &Epoch) -> bool {
        self.ended.load(Ordering::Acquire) == epoch.number
    }

    /// Whether reads over the current shared connection see what was written over another connection of this epoch: if it is
    /// the same epoch, or the same endpoint and `run_id`.
    pub(super) async fn is_still_at(self: &Arc<Self>, epoch: &Epoch) -> bool {
        if self.is_current(epoch) {
            return true;
        }
        let now = self.epoch().await;
        now.is_ok_and(|now| now.run_id.is_some() && now.run_id == epoch.run_id && now.endpoint == epoch.endpoint)
    }

    /// Another connection within the current epoch, to its endpoint.
    pub(super) async fn connect_beside(self: &Arc<Self>) -> RedisResult<(Link, Epoch)> {
        let epoch = self.epoch().await?;
        let connect = connect_to(&epoch.address, epoch.endpoint.clone());
        let connected = timeout(self.settings.connect_timeout, connect).await;
        let link = connected.unwrap_or_else(|_elapsed| Err(not_answered())).inspect_err(|error| {
            if is_of_replica(error) {
                self.leave(&epoch);
            }
        })?;
        if let (Some(here), Some(there)) = (&epoch.run_id, &link.run_id)
            && here != there
        {
            self.leave(&epoch);
            return Err((ErrorKind::Io, "the address leads to another server than the shared connection").into());
        }
        Ok((link, epoch))
    }

    /// Ends an epoch, if it is the current one: its connection is replaced when there are commands.
    pub(super) fn leave(self: &Arc<Self>, epoch: &Epoch) {
        let state = self.state();
        if self.is_current(epoch) && state.epoch.is_some() {
            let task = state.task;
            drop(state);
            self.end_task(task, &connection_lost());
        }
    }

    /// Ends the task of this number, and its epoch. Those whose commands it had sent learn that when its connection is dropped,
    /// or find out that it isn't driven. Those who wait get the error.
    fn end_task(&self, task: u64, error: &RedisError) {
        let mut state = self.state();
        if state.task != task || matches!(state.phase, Phase::Absent) {
            return;
        }
        state.task += 1;
        self.end_epoch(&mut state);
        let (phase, waiting) = (mem::take(&mut state.phase), state.take_waiting());
        drop(state);
        if let Phase::Asleep(waker) = phase {
            waker.wake();
        }
        answer_all(waiting, error);
    }

    fn end_epoch(&self, state: &mut State) {
        if state.epoch.take().is_some() {
            self.ended.fetch_add(1, Ordering::AcqRel);
            self.ended_of_all.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Closes the connection.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.epoch = None;
        if let Phase::Asleep(waker) = mem::take(&mut state.phase) {
            drop(state);
            waker.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn take_waiting(&mut self) -> VecDeque<Waiter> {
        self.unsent.clear();
        self.taken = 0;
        mem::take(&mut self.waiting)
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Moves commands to `out`, which is empty, and their waiters to `expect`: at most so many commands and bytes, but always one
    /// request, however large.
    pub(super) fn take_commands(
        &mut self,
        commands: usize,
        bytes: usize,
        out: &mut Vec<u8>,
        mut expect: impl FnMut(Waiter),
    ) {
        /// What is kept of the queue once it is empty: the memory that a burst needed is given back.
        const KEPT_PLACES: usize = 1024;
        if self.taken == 0 && self.waiting.len() <= commands && self.unsent.len() <= bytes {
            mem::swap(out, &mut self.unsent);
            self.waiting.drain(..).for_each(expect);
            return;
        }
        let from = self.taken;
        let (mut taken, mut is_followed) = (0, false);
        while let Some(next) = self.waiting.front()
            && (is_followed || taken == 0 || (taken < commands && self.taken - from + next.bytes() <= bytes))
        {
            self.taken += next.bytes();
            taken += 1;
            is_followed = next.is_followed;
            self.waiting.pop_front().into_iter().for_each(&mut expect);
        }
        out.extend_from_slice(&self.unsent[from..self.taken]);
        if self.waiting.is_empty() {
            self.unsent = Vec::new();
            self.taken = 0;
            self.waiting.shrink_to(KEPT_PLACES);
        }
        self.forget_taken();
    }

    /// Gives up the memory of commands that were taken, in a queue that never becomes empty.
    fn forget_taken(&mut self) {
        const WORTH_IT: usize = 256 * 1024;
        if self.taken > WORTH_IT && self.taken * 2 > self.unsent.len() {
            self.unsent.drain(..self.taken);
            self.taken = 0;
        }
    }

    /// Takes out the waiters whose commands were not sent within `longest_wait` ticks.
    fn take_overdue(&mut self, longest_wait: u32) -> Vec<Waiter> {
        let mut overdue = Vec::new();
        while let Some(first) = self.waiting.front()
            && self.tick.wrapping_sub(first.since) > longest_wait
        {
            self.taken += first.bytes();
            overdue.extend(self.waiting.pop_front());
        }
        self.forget_taken();
        overdue
    }
}

/// A reply, or the outer error that there is none.
fn unless_lost(reply: RedisResult<Reply>) -> RedisResult<RedisResult<Reply>> {
    match reply {
        Err(error) if error.is_io_error() => Err(error),
        reply => Ok(reply),
    }
}

/// Connects and sends until nothing is left to do.
async fn serve(serving: Serving) {
    let (mut spare, mut replaced) = (None, 0);
    while spare.is_some() || serving.has_work() {
        let connected = match spare.take() {
            Some(connected) => connected,
            None => match serving.connect().await {
                Ok(connected) => connected,
                Err(error) => return serving.fail(&error),
            },
        };
        let Connected { link, address } = connected;
        let Some(epoch) = serving.begin_epoch(&link, &address) else { return };
        let _watch = serving.watch_master(&epoch);
        let began = Instant::now();
        let end = Connection::new(link, &serving, serving.shared.tick, address.may_be_replica, replaced).await;
        serving.end_epoch();
        // If connections fall silent soon after they were made, wait longer before each next spare.
        replaced = if began.elapsed() < SHORT_LIFE { replaced + 1 } else { 0 };
        if let End::Replaced(connected) = end {
            spare = Some(*connected);
        }
    }
}

/// A task's right to drive the connection.
pub(super) struct Serving {
    shared: Arc<Shared>,
    task: u64,
}

impl Serving {
    /// The queue, unless another task has it by now, or it is closed.
    pub(super) fn state(&self) -> Option<MutexGuard<'_, State>> {
        Some(self.shared.state()).filter(|state| state.task == self.task && !state.closed)
    }

    /// Whether there are commands to send. If not, whoever comes next starts another task.
    fn has_work(&self) -> bool {
        let Some(mut state) = self.state() else { return false };
        if state.waiting.is_empty() {
            state.phase = Phase::Absent;
        }
        !state.waiting.is_empty()
    }

    /// Connects, and meanwhile fails commands whose deadline passes.
    async fn connect(&self) -> RedisResult<Connected> {
        let mut connect = self.spare();
        let mut ticks = tokio::time::interval(self.shared.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                connected = &mut connect => return connected,
                _ = ticks.tick() => self.age(),
            }
        }
    }

    /// Starts another connection. The name is resolved, or the sentinels are asked, anew.
    pub(super) fn spare(&self) -> futures_util::future::BoxFuture<'static, RedisResult<Connected>> {
        let shared = self.shared.clone();
        Box::pin(async move {
            let limit = shared.settings.connect_timeout;
            timeout(limit, shared.target.connect(limit)).await.unwrap_or_else(|_elapsed| Err(not_answered()))
        })
    }

    /// Lets a tick pass for commands that can't go out, since there is no connection.
    fn age(&self) {
        let Some(mut state) = self.state() else { return };
        state.tick = state.tick.wrapping_add(1);
        let now = state.tick;
        if !state.waiting.iter().any(|waiter| waiter.is_overdue(now)) {
            return;
        }
        // Their limits differ, so those who go on waiting may stand between them. The commands of the others are dropped.
        let (mut at, mut overdue) = (state.taken, Vec::new());
        let (unsent, waiting) = (mem::take(&mut state.unsent), state.take_waiting());
        for waiter in waiting {
            let command = &unsent[at..at + waiter.bytes()];
            at += waiter.bytes();
            if waiter.is_overdue(now) {
                overdue.push(waiter);
            } else {
                state.unsent.extend_from_slice(command);
                state.waiting.push_back(waiter);
            }
        }
        drop(state);
        answer_all(overdue, &not_answered());
    }

    /// Lets a tick pass for commands that wait for their turn on a connection that is `silent`, or isn't; returns the time.
    pub(super) fn tick(&self, silent: bool) -> Option<u32> {
        /// As long as a get waits for another process' load.
        const LONGEST_WAIT: Duration = crate::defaults::WAIT_TIMEOUT;
        let mut state = self.state()?;
        state.tick = state.tick.wrapping_add(1);
        let now = state.tick;
        let (overdue, error) = if silent {
            (state.take_waiting().into(), not_answered())
        } else {
            (state.take_overdue(self.shared.ticks(LONGEST_WAIT)), too_busy())
        };
        drop(state);
        answer_all(overdue, &error);
        Some(now)
    }

    /// How many ticks a server may take to answer a step.
    pub(super) fn ticks_of_step(&self) -> u32 {
        self.shared.ticks(self.shared.settings.operation_timeout)
    }

    fn begin_epoch(&self, link: &Link, address: &Arc<Address>) -> Option<Epoch> {
        let mut state = self.state()?;
        let epoch = Epoch {
            number: self.shared.ended.load(Ordering::Acquire),
            address: address.clone(),
            endpoint: link.endpoint.clone(),
            run_id: link.run_id.clone(),
        };
        state.epoch = Some(epoch.clone());
        state.failed = None;
        if link.needless_password && !mem::replace(&mut state.has_warned, true) {
            tracing::warn!(
                address = %address,
                "the cache's URL has a password, and the server needs none: take it out, or set one at the server"
            );
        }
        Some(epoch)
    }

    fn end_epoch(&self) {
        if let Some(mut state) = self.state() {
            self.shared.end_epoch(&mut state);
        }
    }

    /// Has the sentinels asked now and then whether the master is still the same.
    fn watch_master(&self, epoch: &Epoch) -> Option<AbortOnDrop<()>> {
        let Target::Master(sentinels) = &self.shared.target else { return None };
        let (shared, epoch, sentinels) = (self.shared.clone(), epoch.clone(), sentinels.clone());
        Some(AbortOnDrop(tokio::spawn(async move {
            sentinels.another_is_master(&epoch.address.place, shared.settings.connect_timeout).await;
            shared.leave(&epoch);
        })))
    }

    /// Tells all who wait that there is no connection.
    fn fail(&self, error: &RedisError) {
        if let Some(mut state) = self.state() {
            state.failed = Some((Instant::now(), error.clone()));
        }
        self.shared.end_task(self.task, error);
    }
}

/// The task may also end with its runtime.
impl Drop for Serving {
    fn drop(&mut self) {
        self.shared.end_task(self.task, &runtime_ended());
    }
}

impl Target {
    async fn connect(&self, limit: Duration) -> RedisResult<Connected> {
        match self {
            Self::Server(address) => Ok(Connected { link: connect(address).await?, address: address.clone() }),
            Self::Master(sentinels) => sentinels.connect(limit).await,
        }
    }
}

fn answer_all(waiting: impl IntoIterator<Item = Waiter>, error: &RedisError) {
    for waiter in waiting {
        waiter.answer(Err(error.clone()));
    }
}

fn no_runtime() -> RedisError {
    (ErrorKind::InvalidClientConfig, "there is no tokio runtime here").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten commands of 100 bytes, each with a waiter. Those that are followed make up one request with the next.
    fn state(is_followed: impl Fn(usize) -> bool) -> State {
        let waiter = |at| {
            let reply_to = ReplyTo::One(oneshot::channel().0);
            Waiter { reply_to, bytes: 100, since: 0, limit: 1, is_followed: is_followed(at) }
        };
        State { unsent: vec![b'x'; 1_000], waiting: (0..10).map(waiter).collect(), ..State::default() }
    }

    /// The bytes that go out together, until nothing is left.
    fn taken(state: &mut State, commands: usize, bytes: usize) -> Vec<usize> {
        let mut taken = Vec::new();
        while state.has_waiting() {
            let mut out = Vec::new();
            state.take_commands(commands, bytes, &mut out, drop);
            taken.push(out.len());
        }
        taken
    }

    #[test]
    fn bounds_by_commands_and_by_bytes_what_goes_out_together() {
        assert_eq!(taken(&mut state(|_| false), 100, 1_000), [1_000]);
        assert_eq!(taken(&mut state(|_| false), 4, 1_000), [400, 400, 200]);
        assert_eq!(taken(&mut state(|_| false), 100, 350), [300, 300, 300, 100]);
        assert_eq!(taken(&mut state(|_| false), 100, 50), [100; 10]);
        assert_eq!(taken(&mut state(|at| at % 5 != 4), 2, 50), [500, 500], "a request was torn apart");
    }
}
