//! The task that connects, sends what is queued, and connects again while commands wait.
//!
//! At most one task drives the connection: the one whose number is in the state. A task that was given up, because it is not
//! driven or its epoch has ended, may still run for a while. So it looks at the number each time it takes the lock, and does
//! nothing more once that has changed.
//!
//! An epoch begins and ends here. When a task is given up, its epoch ends before any waiting caller is answered: a caller whose
//! connection was lost must not find the lost epoch still current.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use parking_lot::MutexGuard;
use redis::{RedisError, RedisResult};
use tokio::runtime;
use tokio::time::MissedTickBehavior;
use tokio_util::task::AbortOnDropHandle;

use super::connection::{Connection, End};
use super::epoch::{Change, Epoch, Seen};
use super::queue::{Waiter, answer_all};
use super::{Driver, Phase, Shared, State};
use crate::backend::redis::connect::{Link, Target};
use crate::backend::redis::errors::{connection_lost, not_answered, runtime_ended, too_busy};
use crate::backend::redis::{Restarted, TakenOver};
use crate::defaults::WAIT_TIMEOUT;

/// A connection that has lived for less is no sign that the next one will last.
const SHORT_LIFE: Duration = Duration::from_secs(2);
/// The longest that a command waits for its turn to be sent. The backend doesn't know its caches' own `wait_timeout`: this is the
/// default of that.
const LONGEST_WAIT: Duration = WAIT_TIMEOUT;

impl Shared {
    pub(super) fn start(self: &Arc<Self>, mut state: MutexGuard<'_, State>, runtime: runtime::Id) {
        state.task += 1;
        state.phase = Phase::Awake;
        state.runtime = Some(runtime);
        state.life = Arc::default();
        let (life, driver) = (state.life.clone(), Driver { shared: self.clone(), task: state.task });
        // Unlock first: a runtime that is shutting down drops the task at once, and `Driver::drop` takes the lock.
        drop(state);
        tokio::spawn(life.of(drive(driver)));
    }

    /// Gives up the task of this number, and ends its epoch. Callers whose commands are not sent yet get the error. Those whose
    /// commands it has sent get theirs when the task drops its connection, or find out that the task isn't driven.
    pub(super) fn end_task(&self, task: u64, error: &RedisError) {
        let state = self.state.lock();
        if state.task == task {
            self.give_up(state, error);
        }
    }

    fn give_up(&self, mut state: MutexGuard<'_, State>, error: &RedisError) {
        if matches!(state.phase, Phase::Absent) {
            return;
        }
        state.task += 1;
        self.end_epoch(&mut state);
        let (phase, waiting) = (mem::take(&mut state.phase), state.queue.take_all());
        drop(state);
        if let Phase::Asleep(waker) = phase {
            waker.wake();
        }
        answer_all(waiting, error);
    }

    /// Closes the connection for good. Its epoch is not counted as ended, since nobody is left to read here.
    pub(in crate::backend::redis) fn close(&self) {
        let mut state = self.state.lock();
        state.epoch = None;
        self.give_up(state, &connection_lost());
    }
}

/// Connects and sends until there is nothing left to do.
async fn drive(driver: Driver) {
    let (mut spare, mut replaced) = (None, 0);
    while spare.is_some() || driver.has_work() {
        let link = match spare.take() {
            Some(link) => link,
            None => match driver.connect().await {
                Ok(link) => link,
                Err(error) => return driver.fail(&error),
            },
        };
        let Some(epoch) = driver.begin_epoch(&link) else { return };
        let _watch = driver.watch_master(&epoch);
        let began = Instant::now();
        let end = Connection::new(link, &driver, replaced).await;
        if let Some(mut state) = driver.state() {
            driver.shared.end_epoch(&mut state);
        }
        driver.shared.backends.lost_connection();
        // If connections fall silent soon after they were made, wait longer before each next spare.
        replaced = if began.elapsed() < SHORT_LIFE { replaced + 1 } else { 0 };
        if let End::Replaced(link) = end {
            spare = Some(*link);
        }
    }
}

impl Driver {
    /// Whether there are commands to send. If not, the next command starts another task.
    fn has_work(&self) -> bool {
        let Some(mut state) = self.state() else { return false };
        if state.queue.is_empty() {
            state.phase = Phase::Absent;
        }
        !state.queue.is_empty()
    }

    /// Connects, and meanwhile fails commands whose deadline passes: there is no connection that would count their time.
    async fn connect(&self) -> RedisResult<Link> {
        let mut connect = self.spare();
        let mut ticks = tokio::time::interval(self.shared.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // A connection that is there counts before the tick: this process may have stood still.
                biased;
                connected = &mut connect => return connected,
                _ = ticks.tick() => {
                    self.tick_with(|waiter, now| waiter.is_overdue(now), &not_answered());
                }
            }
        }
    }

    /// Starts another connection. The name is resolved, or the sentinels are asked, anew.
    pub(super) fn spare(&self) -> BoxFuture<'static, RedisResult<Link>> {
        let shared = self.shared.clone();
        Box::pin(async move { shared.target.connect(shared.settings.connect_timeout).await })
    }

    /// Lets a tick pass for commands that wait for their turn on a connection; returns the time. If the server `is_silent`, none
    /// of them would be answered.
    pub(super) fn tick(&self, is_silent: bool) -> Option<u32> {
        if is_silent {
            return self.tick_with(|_, _| true, &not_answered());
        }
        let longest = self.shared.ticks(LONGEST_WAIT);
        self.tick_with(|waiter, now| waiter.has_waited_for(longest, now), &too_busy())
    }

    fn tick_with(&self, is_overdue: impl Fn(&Waiter, u32) -> bool, error: &RedisError) -> Option<u32> {
        let mut state = self.state()?;
        let now = state.queue.tick();
        let overdue = state.queue.take_overdue(|waiter| is_overdue(waiter, now));
        drop(state);
        answer_all(overdue, error);
        Some(now)
    }

    fn begin_epoch(&self, link: &Link) -> Option<Epoch> {
        self.compare_servers(link)?;
        let mut state = self.state()?;
        state.seen = Some(Seen::new(link));
        let epoch = Epoch::new(self.shared.ended.load(Ordering::Acquire), link);
        state.epoch = Some(epoch.clone());
        state.failed = None;
        if link.needless_password && !mem::replace(&mut state.has_warned, true) {
            tracing::warn!(
                address = %link.address,
                "the cache's URL has a password, and the server needs none: take it out, or set one at the server"
            );
        }
        Some(epoch)
    }

    /// Tells the backends if this is another server than before. Nothing is sent to it before that.
    fn compare_servers(&self, link: &Link) -> Option<()> {
        let change = self.state()?.seen.as_ref().map_or(Change::None, |seen| seen.change(link));
        let shared = &self.shared;
        let take_over = |last_seen| shared.backends.taken_over(Some(last_seen), TakenOver::Server(shared));
        match change {
            Change::None => {}
            Change::TakenOver { last_seen } => take_over(last_seen),
            Change::Restarted { last_seen, run_id } => {
                shared.backends.restarted(&Restarted { run_id, server: shared.clone() });
                take_over(last_seen);
            }
        }
        Some(())
    }

    /// Notes that the server has answered a heartbeat that was sent at this time, and in which role.
    pub(super) fn note_heartbeat(&self, sent: Instant, is_replica: bool) {
        if let Some(seen) = self.state().as_mut().and_then(|state| state.seen.as_mut()) {
            (seen.answered, seen.is_replica) = (sent, is_replica);
        }
    }

    /// Asks the sentinels now and then whether the master is still the same, in a task that ends with the epoch.
    fn watch_master(&self, epoch: &Epoch) -> Option<AbortOnDropHandle<()>> {
        let Target::Master(sentinels) = &self.shared.target else { return None };
        let (shared, epoch, sentinels) = (self.shared.clone(), epoch.clone(), sentinels.clone());
        Some(AbortOnDropHandle::new(tokio::spawn(async move {
            sentinels.wait_for_new_master(&epoch.address.place, shared.settings.connect_timeout).await;
            shared.leave(&epoch);
        })))
    }

    /// Answers all waiting callers with the error of an attempt to connect, and callers within the next [`PAUSE`](super::PAUSE).
    fn fail(&self, error: &RedisError) {
        if let Some(mut state) = self.state() {
            state.failed = Some((Instant::now(), error.clone()));
        }
        self.shared.end_task(self.task, error);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Does nothing for a task that has ended by itself. Otherwise its runtime has dropped it.
        self.shared.end_task(self.task, &runtime_ended());
    }
}
