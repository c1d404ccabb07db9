//! One connection of reads, from its first command to its end.
//!
//! Commands of all callers go out together, and replies are handed out in the order of their commands. After some of them
//! the callers get their turn: their next commands are on the way while the rest is handed out, so that server and client
//! work at the same time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{io, mem};

use bytes::{Bytes, BytesMut};
use redis::{ErrorKind, RedisError, RedisResult};
use resp_rs::ParseError;
use resp_rs::resp2::{Frame, parse_frame};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::dial::{check_role, garbled};
use super::{Duplex, Serving, Task, Waiter, encode, server_error};
use crate::backend::redis::connect::Beside;
use crate::backend::redis::errors::{connection_lost, unexpected_reply};

/// How often the server is asked whether it still is a primary. One that says nothing for as long is gone.
const BEAT: Duration = Duration::from_secs(1);
/// How many replies are handed out until callers get their turn. Each time it is twice as many, so that others who keep the
/// runtime busy don't hold up the rest.
const FIRST_TURN: usize = 16;
/// How much is received at once, into a new buffer; and the room below which a buffer isn't received into any more.
const RECEIVED_AT_ONCE: usize = 64 * 1024;
const LEAST_ROOM: usize = 16 * 1024;
/// The most that is kept of a buffer for commands once it is sent; and of a queue, once it is empty.
const KEPT: usize = 64 * 1024;
const KEPT_PLACES: usize = 1024;
/// The largest reply that is taken.
const MAX_REPLY_BYTES: usize = 64 * 1024 * 1024;

/// A future that ends with the connection.
pub(super) struct Line<'a> {
    link: Box<dyn Duplex>,
    beside: Beside,
    serving: &'a Serving,
    /// What is being sent, and how much of it was.
    sending: Vec<u8>,
    sent: usize,
    /// The beginning of a reply.
    received: BytesMut,
    /// Replies, to be handed out before more is received.
    replies: Bytes,
    expected: VecDeque<Expected>,
    /// How many are handed out next.
    turn: usize,
    beat: Interval,
    /// Whether anything came since the last beat.
    heard: bool,
    is_asleep: bool,
}

enum Expected {
    Reply(Waiter),
    Role,
}

impl Expected {
    fn into_waiter(self) -> Option<Waiter> {
        match self {
            Self::Reply(waiter) => Some(waiter),
            Self::Role => None,
        }
    }
}

/// How a connection ended.
pub(super) enum Lost {
    /// It is not needed any more, or the shared one was lost.
    GivenUp,
    /// It broke, or its server is not to be read from.
    Broken,
}

/// Why a connection ends.
enum End {
    GivenUp,
    Broken(RedisError),
}

impl<E: Into<RedisError>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Broken(error.into())
    }
}

impl<'a> Line<'a> {
    pub(super) fn new(link: Box<dyn Duplex>, beside: Beside, serving: &'a Serving) -> Self {
        let mut beat = tokio::time::interval_at(Instant::now() + BEAT, BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            link,
            beside,
            serving,
            sending: Vec::new(),
            sent: 0,
            received: BytesMut::new(),
            replies: Bytes::new(),
            expected: VecDeque::new(),
            turn: FIRST_TURN,
            beat,
            heard: true,
            is_asleep: false,
        }
    }

    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Poll<Result<Infallible, End>> {
        if self.is_woken_by_command() {
            // The tasks that are ready may have commands too.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            while self.beat.poll_tick(cx).is_ready() {
                self.ask_for_role()?;
            }
            self.take_commands()?;
            if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                return Poll::Ready(Err(error.into()));
            }
            if self.hand_out()? {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.poll_receive(cx)?.is_ready() {
                continue;
            }
            if self.falls_asleep(cx) {
                return Poll::Pending;
            }
        }
    }

    fn ask_for_role(&mut self) -> Result<(), End> {
        if !self.beside.is_current() {
            return Err(End::GivenUp);
        }
        let is_asked = self.expected.iter().any(|expected| matches!(expected, Expected::Role));
        if is_asked && !self.heard {
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        }
        self.heard = false;
        if !is_asked {
            encode(&mut self.sending, &[b"ROLE"]);
            self.expected.push_back(Expected::Role);
        }
        Ok(())
    }

    /// Takes what callers have queued, once all before is sent.
    fn take_commands(&mut self) -> Result<(), End> {
        let Some(mut state) = self.serving.state() else {
            return Err(End::GivenUp);
        };
        if self.sending.is_empty() {
            mem::swap(&mut self.sending, &mut state.unsent);
            self.expected.extend(state.waiting.drain(..).map(Expected::Reply));
            state.waiting.shrink_to(KEPT_PLACES);
        }
        Ok(())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.sending.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while self.sent < self.sending.len() {
            let sent = ready!(Pin::new(&mut self.link).poll_write(cx, &self.sending[self.sent..]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
        }
        ready!(Pin::new(&mut self.link).poll_flush(cx))?;
        self.sending.clear();
        self.sending.shrink_to(KEPT);
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Hands out some of the replies; returns whether there may be more.
    fn hand_out(&mut self) -> Result<bool, End> {
        let mut handed_out = 0;
        while handed_out < self.turn && !self.replies.is_empty() {
            match parse_frame(self.replies.clone()) {
                Ok((reply, rest)) => {
                    let size = self.replies.len() - rest.len();
                    self.replies = rest;
                    match self.expected.pop_front() {
                        Some(Expected::Reply(waiter)) => {
                            handed_out += 1;
                            let reply = if size > MAX_REPLY_BYTES { Err(too_large()) } else { checked(reply) };
                            // It fails when its caller is gone.
                            let _ = waiter.send(reply);
                        }
                        Some(Expected::Role) => check_role(&reply)?,
                        None => return Err(unexpected_reply().into()),
                    }
                }
                Err(ParseError::Incomplete) => {
                    let rest = mem::take(&mut self.replies);
                    // Nothing is in it; but without it the rest may be alone in its buffer, and need no copy.
                    drop(mem::take(&mut self.received));
                    self.received = rest.try_into_mut().unwrap_or_else(|shared| {
                        let mut copy = BytesMut::with_capacity(shared.len() + RECEIVED_AT_ONCE);
                        copy.extend_from_slice(&shared);
                        copy
                    });
                    if self.received.len() > MAX_REPLY_BYTES {
                        self.refuse_reply();
                        return Err(io::Error::from(io::ErrorKind::ConnectionAborted).into());
                    }
                }
                Err(error) => return Err(garbled(&error).into()),
            }
        }
        self.serving.queue.room.add_permits(handed_out);
        if self.expected.is_empty() {
            self.expected.shrink_to(KEPT_PLACES);
        }
        self.turn = if self.replies.is_empty() { FIRST_TURN } else { self.turn * 2 };
        Ok(!self.replies.is_empty())
    }

    /// The reply that is being received is too large; those after it are asked for again.
    fn refuse_reply(&mut self) {
        if let Some(Expected::Reply(waiter)) = self.expected.pop_front() {
            self.serving.queue.answer([waiter].into_iter(), &too_large());
        }
    }

    /// Tells all who wait for a reply why there will be none.
    fn fail(&mut self, error: &RedisError) {
        let waiting = mem::take(&mut self.expected).into_iter();
        let waiting: Vec<_> = waiting.filter_map(Expected::into_waiter).collect();
        self.serving.queue.answer(waiting.into_iter(), error);
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.received.capacity() - self.received.len() < LEAST_ROOM {
            self.received.reserve(RECEIVED_AT_ONCE);
        }
        let received = ready!(pin!(self.link.read_buf(&mut self.received)).poll(cx))?;
        if received == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.heard = true;
        self.replies = self.received.split().freeze();
        Poll::Ready(Ok(()))
    }

    /// Leaves word how to be woken, unless there is something to do.
    fn falls_asleep(&mut self, cx: &Context<'_>) -> bool {
        let Some(mut state) = self.serving.state() else { return false };
        self.is_asleep = state.unsent.is_empty() || !self.sending.is_empty();
        if self.is_asleep {
            state.task = Task::Asleep(cx.waker().clone());
        }
        self.is_asleep
    }

    fn is_woken_by_command(&mut self) -> bool {
        mem::take(&mut self.is_asleep) && self.serving.state().is_some_and(|state| matches!(state.task, Task::Awake))
    }
}

impl Future for Line<'_> {
    type Output = Lost;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Lost> {
        match ready!(self.poll_turns(cx)) {
            Err(End::GivenUp) => Poll::Ready(Lost::GivenUp),
            Err(End::Broken(error)) => {
                tracing::debug!(%error, "the connection of reads broke");
                self.fail(&error);
                Poll::Ready(Lost::Broken)
            }
        }
    }
}

/// Whoever still waits learns that the connection is gone.
impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.fail(&connection_lost());
    }
}

fn too_large() -> RedisError {
    (ErrorKind::Client, "the reply has more than 64 MiB").into()
}

fn checked(reply: Frame) -> RedisResult<Frame> {
    match reply {
        Frame::Error(text) => Err(server_error(&text)),
        reply => Ok(reply),
    }
}
