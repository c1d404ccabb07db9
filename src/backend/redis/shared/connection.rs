//! One socket of the shared connection, from its first command to its end: commands out, replies in, heartbeat, deadlines.
//!
//! Commands of all callers go out together, and replies are dispatched in the order of their commands. It doesn't connect
//! again: see `task`.
//!
//! *Time.* The server's time to answer runs from when a command goes out, and is counted in ticks of this task. A tick counts
//! only after the socket has been emptied, and counts once however late it comes. So a reply that was received in time is an
//! answer, however late this process gets to read it, and a process that stood still doesn't take its server for dead.
//!
//! *Silence.* When a server owes a reply and has sent nothing for some ticks, another connection is made beside this one, a
//! *spare*. If the network has cut this connection without a trace, the spare is answered at once; if the server is merely
//! slow, neither is. The one that is answered first is used, so a stall costs no connection that would have come back.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{io, mem};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, MaybeDone, maybe_done};
use redis::{RedisError, RedisResult};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep};

use super::queue::Waiter;
use super::{Driver, Phase};
use crate::backend::redis::connect::{Duplex, Link, check_role};
use crate::backend::redis::errors::{
    connection_lost, is_logged_off, is_of_replica, not_answered, runtime_ended, unexpected_reply,
};
use crate::backend::redis::renewal::Renewal;
use crate::backend::redis::resp::{Received, Reply, encode};

/// How often the server is asked whether it still is a primary.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Replies dispatched before this task yields, so that the callers' next commands are on the way while the rest is dispatched.
/// It doubles each time, so that unrelated busy tasks can't hold up the rest.
const FIRST_ROUND: usize = 16;
/// Commands under way at a time, and bytes of commands that go out together: a server answers these well within any deadline.
const MOST_UNDER_WAY: usize = 512;
const MOST_BYTES: usize = 256 * 1024;
/// Size of the buffer to receive into.
const RECEIVED_AT_ONCE: usize = 64 * 1024;
/// Ticks of silence after which a spare is tried, unless two round trips take longer.
const SILENCE: u32 = 3;
/// More bytes of commands than this take a while to arrive. Until the deadline of a step has passed, they excuse a silence.
const LARGE: usize = 64 * 1024;
/// Ticks until the next spare, after one that failed. Doubled each time, and not a `Backoff`: it is counted by the clock of the
/// connection, which doesn't count the time in which this process stood still.
const FIRST_PAUSE: u32 = 4;
const LONGEST_PAUSE: u32 = 64;
/// A younger connection isn't left because of a `READONLY` or `NOAUTH`: a server that hides its role, for example, would be
/// reconnected to for each write.
const LEAST_AGE: Duration = Duration::from_millis(200);

/// A future that drives the connection until its end.
pub(super) struct Connection<'a> {
    stream: Box<dyn Duplex>,
    driver: &'a Driver,
    began: Instant,
    /// The bytes being sent, and how many of them have been.
    sending: Vec<u8>,
    sent: usize,
    received: Received,
    expected: VecDeque<Expected>,
    /// How many replies are dispatched before the next yield.
    round: usize,
    clock: Clock,
    renewal: Renewal,
    may_be_replica: bool,
    /// Whether it was a replica at the last heartbeat.
    was_replica: bool,
    hangs_up: bool,
    /// Another connection, which is used if this one stays silent.
    spare: Option<MaybeDone<BoxFuture<'static, RedisResult<Link>>>>,
    is_asleep: bool,
}

/// The ticks of a connection.
struct Clock {
    tick: Duration,
    sleep: Pin<Box<Sleep>>,
    /// Whether nothing is under way, so that the next tick is that of the heartbeat.
    is_idle: bool,
    now: u32,
    next_heartbeat: Instant,
    /// When the server last sent something, or had nothing to send.
    heard: u32,
    /// Bytes that were sent since then.
    sent_since: usize,
    /// When a spare may be tried, and how long to wait after it for the next one.
    next_spare: u32,
    pause: u32,
    /// Ticks of silence after which a spare is tried.
    silence: u32,
}

enum Expected {
    /// `None` for a reply that is too late: its caller has got an error. It still has its place in the order.
    Reply(Option<Waiter>),
    Role {
        sent: std::time::Instant,
    },
    Login,
}

/// How a connection ended.
pub(super) enum End {
    /// It was closed, or its task was given up.
    GivenUp,
    /// It broke, or its server must not be used.
    Broken(RedisError),
    /// It was silent, and the spare was answered.
    Replaced(Box<Link>),
}

impl<E: Into<RedisError>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Broken(error.into())
    }
}

impl<'a> Connection<'a> {
    /// `replaced`: the number of connections in a row before this one that have lived for a short time.
    pub(super) fn new(link: Link, driver: &'a Driver, replaced: u32) -> Self {
        let began = Instant::now();
        let pause = (FIRST_PAUSE << replaced.min(8)).min(LONGEST_PAUSE);
        let (now, tick) = (driver.state().map_or(0, |state| state.queue.now), driver.shared.tick);
        let clock = Clock {
            tick,
            sleep: Box::pin(sleep(tick)),
            is_idle: false,
            now,
            next_heartbeat: began + HEARTBEAT,
            heard: now,
            sent_since: 0,
            next_spare: now.wrapping_add(if replaced > 0 { pause } else { 0 }),
            pause,
            silence: SILENCE.max(u32::try_from((link.round_trip * 2).as_nanos() / tick.as_nanos()).unwrap_or(SILENCE)),
        };
        Self {
            renewal: Renewal::of(&link, driver.shared.settings.connect_timeout),
            stream: link.stream,
            driver,
            began,
            sending: Vec::new(),
            sent: 0,
            received: Received::new(RECEIVED_AT_ONCE),
            expected: VecDeque::new(),
            round: FIRST_ROUND,
            clock,
            may_be_replica: link.address.may_be_replica,
            was_replica: link.is_replica,
            hangs_up: link.hangs_up,
            spare: None,
            is_asleep: false,
        }
    }

    fn poll_rounds(&mut self, cx: &mut Context<'_>) -> Poll<Result<Infallible, End>> {
        if self.is_woken_by_command() && !self.expected.is_empty() {
            // Let the other ready tasks run first: they may queue more commands, and all of them then go out in one write.
            // `yield_now` would also wait for the runtime to poll for I/O. If no reply is expected, don't wait: no other caller
            // is about to wake up.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            self.take_commands()?;
            // Go on receiving while a send is pending: a server that can't send its replies stops reading commands, and both sides
            // would wait for each other.
            if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                return Poll::Ready(Err(error.into()));
            }
            if self.dispatch()? {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.poll_receive(cx)?.is_ready() {
                continue;
            }
            // The tick comes after the socket was emptied: only a reply that has not arrived may be overdue.
            if self.clock.sleep.as_mut().poll(cx).is_ready() {
                self.tick()?;
                continue;
            }
            // A spare is used at the next tick. Until then this connection, which was asked earlier, may be answered too.
            if let Some(spare) = &mut self.spare {
                let _ = spare.poll_unpin(cx);
            }
            if self.logs_in(cx) {
                continue;
            }
            if self.falls_asleep(cx) {
                return Poll::Pending;
            }
        }
    }

    /// Takes what callers have queued, once all earlier commands are sent.
    fn take_commands(&mut self) -> Result<(), End> {
        let Some(mut state) = self.driver.state() else {
            return Err(End::GivenUp);
        };
        if !self.sending.is_empty() || state.queue.is_empty() || self.expected.len() >= MOST_UNDER_WAY {
            return Ok(());
        }
        if self.expected.is_empty() {
            self.clock.hear();
        }
        let (room, now) = (MOST_UNDER_WAY - self.expected.len(), self.clock.now);
        state.queue.take(room, MOST_BYTES, &mut self.sending, |mut waiter| {
            waiter.since = now;
            self.expected.push_back(Expected::Reply(Some(waiter)));
        });
        drop(state);
        if self.clock.is_idle {
            // The next tick must not wait for the heartbeat.
            self.clock.set(false);
        }
        Ok(())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.sending.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while self.sent < self.sending.len() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.sending[self.sent..]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
            self.clock.sent_since += sent;
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.sending.clear();
        self.sending.shrink_to(MOST_BYTES);
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Dispatches a round of replies, and returns whether there may be more.
    fn dispatch(&mut self) -> Result<bool, End> {
        let mut dispatched = 0;
        while dispatched < self.round
            && let Some(reply) = self.received.next()?
        {
            match self.expected.pop_front() {
                Some(Expected::Reply(Some(waiter))) => {
                    dispatched += 1;
                    let ends_it = |error: &&RedisError| is_of_replica(error) || is_logged_off(error);
                    let is_old = |_: &&RedisError| self.began.elapsed() >= LEAST_AGE;
                    let Some(error) = reply.as_ref().err().filter(ends_it).filter(is_old).cloned() else {
                        waiter.answer(reply);
                        continue;
                    };
                    if is_logged_off(&error) {
                        // The command wasn't carried out: its caller gets the error of a lost connection, and sends it again.
                        self.expected.push_front(Expected::Reply(Some(waiter)));
                    } else {
                        waiter.answer(reply);
                    }
                    return Err(error.into());
                }
                Some(Expected::Role { sent }) => {
                    self.note_role(sent, &reply);
                    check_role(reply, self.may_be_replica)?;
                }
                Some(Expected::Login) => self.renewal.answered(&reply),
                Some(Expected::Reply(None)) => {}
                None => return Err(unexpected_reply().into()),
            }
        }
        let is_done = self.received.is_empty();
        self.round = if is_done { FIRST_ROUND } else { self.round.saturating_mul(2) };
        Ok(!is_done)
    }

    /// In a cluster a server that was demoted redirects what it gets. A process that sends nothing finds out here.
    fn note_role(&mut self, sent: std::time::Instant, role: &RedisResult<Reply>) {
        let is_replica = role.as_ref().is_ok_and(Reply::is_role_of_replica);
        self.driver.note_heartbeat(sent, is_replica);
        if self.may_be_replica && !mem::replace(&mut self.was_replica, is_replica) && is_replica {
            self.driver.shared.note_change();
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let received = ready!(pin!(self.stream.read_buf(self.received.buffer())).poll(cx))?;
        if received == 0 {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
        }
        self.clock.hear();
        self.spare = None;
        self.received.examine();
        Poll::Ready(Ok(()))
    }

    /// Lets a tick pass: answers overdue commands with an error, and looks after spare and heartbeat.
    fn tick(&mut self) -> Result<(), End> {
        // For how many ticks the server has owed a reply and sent nothing.
        let quiet = if self.expected.is_empty() { 0 } else { self.clock.now.wrapping_sub(self.clock.heard) };
        let is_silent = quiet > self.driver.shared.ticks(self.driver.shared.settings.operation_timeout);
        let Some(now) = self.driver.tick(is_silent) else { return Err(End::GivenUp) };
        self.clock.now = now;
        for expected in &mut self.expected {
            if let Expected::Reply(waiter) = expected
                && let Some(waiter) = waiter.take_if(|waiter| waiter.is_overdue(now))
            {
                waiter.answer(Err(not_answered()));
            }
        }
        if quiet > 0
            && let Some(connected) = self.spare.as_mut().and_then(|spare| Pin::new(spare).take_output())
        {
            self.spare = None;
            if let Ok(link) = connected {
                return Err(End::Replaced(Box::new(link)));
            }
        }
        let is_large = self.clock.sent_since > LARGE;
        let is_suspect = quiet >= self.clock.silence && (!is_large || is_silent);
        let may_try_spare = self.spare.is_none() && now.wrapping_sub(self.clock.next_spare) < u32::MAX / 2;
        if is_suspect && may_try_spare {
            self.clock.next_spare = now.wrapping_add(self.clock.pause);
            self.clock.pause = LONGEST_PAUSE.min(self.clock.pause * 2);
            self.spare = Some(maybe_done(self.driver.spare()));
        }
        self.ask_for_role();
        self.clock.set(self.expected.is_empty());
        Ok(())
    }

    fn ask_for_role(&mut self) {
        // `sending` may end in the middle of a request, and nothing may come between its commands.
        if Instant::now() < self.clock.next_heartbeat || !self.sending.is_empty() {
            return;
        }
        self.clock.next_heartbeat = Instant::now() + HEARTBEAT;
        if self.expected.iter().any(|expected| matches!(expected, Expected::Role { .. })) {
            return;
        }
        if self.expected.is_empty() {
            self.clock.hear();
        }
        let command = if self.hangs_up { b"PING" } else { b"ROLE" };
        encode(&mut self.sending, &[command]);
        self.expected.push_back(Expected::Role { sent: std::time::Instant::now() });
    }

    /// Queues an AUTH once there are new credentials; returns whether it did.
    fn logs_in(&mut self, cx: &mut Context<'_>) -> bool {
        // As for ROLE. While bytes are being sent, the socket wakes this task.
        if !self.sending.is_empty() || self.renewal.poll(cx).is_pending() {
            return false;
        }
        let is_under_way = self.expected.iter().any(|expected| matches!(expected, Expected::Login));
        let Some(login) = self.renewal.login().filter(|_| !is_under_way) else { return false };
        encode(&mut self.sending, &login.words());
        if self.expected.is_empty() {
            self.clock.hear();
        }
        self.expected.push_back(Expected::Login);
        self.clock.set(false);
        true
    }

    /// Stores this task's waker, unless there are commands to send. Returns whether the task may sleep. Both happen under the lock
    /// of the queue, so no command that is queued now goes unnoticed.
    fn falls_asleep(&mut self, cx: &Context<'_>) -> bool {
        let Some(mut state) = self.driver.state() else { return false };
        let is_full = !self.sending.is_empty() || self.expected.len() >= MOST_UNDER_WAY;
        self.is_asleep = state.queue.is_empty() || is_full;
        if self.is_asleep {
            state.phase = Phase::Asleep(cx.waker().clone());
        }
        self.is_asleep
    }

    fn is_woken_by_command(&mut self) -> bool {
        mem::take(&mut self.is_asleep) && self.driver.state().is_some_and(|state| matches!(state.phase, Phase::Awake))
    }

    /// Answers all callers that wait for a reply with an error.
    fn fail(&mut self, error: &RedisError) {
        for expected in mem::take(&mut self.expected) {
            if let Expected::Reply(Some(waiter)) = expected {
                waiter.answer(Err(error.clone()));
            }
        }
    }
}

impl Clock {
    fn hear(&mut self) {
        self.heard = self.now;
        self.sent_since = 0;
    }

    /// Sets the next tick.
    fn set(&mut self, is_idle: bool) {
        self.is_idle = is_idle;
        let next = Instant::now() + self.tick;
        self.sleep.as_mut().reset(if is_idle { self.next_heartbeat.max(next) } else { next });
    }
}

impl Future for Connection<'_> {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let Err(end) = ready!(self.poll_rounds(cx));
        self.fail(&connection_lost());
        if let End::Broken(error) = &end {
            tracing::debug!(%error, "a shared connection ended");
        }
        Poll::Ready(end)
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        // Empty unless the task was dropped with its runtime.
        self.fail(&runtime_ended());
    }
}
