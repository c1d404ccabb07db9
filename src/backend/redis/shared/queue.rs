//! Requests, and the queue of their commands that are not sent yet, with who waits for the reply to each.
//!
//! The invariant: `unsent`, from `taken` on, holds exactly the commands of `waiting`, in the same order. The queue knows
//! nothing of tasks and connections; whoever uses it holds the lock that it is in.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use redis::{RedisError, RedisResult};
use tokio::sync::{mpsc, oneshot};

use crate::backend::redis::resp::Reply;

/// How often commands that may be carried out twice are sent.
pub(super) const ATTEMPTS: u32 = 4;

/// Appends one of a request's commands, by its number.
pub(in crate::backend::redis) type Encode<'a> = dyn Fn(usize, &mut Vec<u8>) + Sync + 'a;

/// A caller's commands, and what may become of them when their connection is lost.
#[derive(Clone, Copy)]
pub(in crate::backend::redis) struct Request<'a> {
    pub(in crate::backend::redis) encode: &'a Encode<'a>,
    /// How long the server may take to answer.
    pub(in crate::backend::redis) limit: Duration,
    /// How often the commands may be sent, if their connection is lost each time.
    pub(in crate::backend::redis) attempts: u32,
    /// Whether the commands are a write, which depends on their order. So all of them are sent again if one is redirected; and if
    /// the epoch has ended before the replies came, the write counts as lost.
    pub(in crate::backend::redis) is_write: bool,
}

impl<'a> Request<'a> {
    /// Commands that may be carried out twice.
    pub(in crate::backend::redis) fn new(limit: Duration, encode: &'a Encode<'a>) -> Self {
        Self { encode, limit, attempts: ATTEMPTS, is_write: false }
    }
}

#[derive(Default)]
pub(super) struct Queue {
    /// Encoded commands. The first `taken` bytes have been taken out already.
    unsent: Vec<u8>,
    taken: usize,
    waiting: VecDeque<Waiter>,
    /// The clock of all commands, in ticks of the task that sends them.
    pub(super) now: u32,
}

/// One command's place in the queue, and then among the commands whose replies are expected.
pub(super) struct Waiter {
    reply_to: ReplyTo,
    /// Length of the command.
    bytes: u32,
    /// The tick in which it was queued, and later the one in which it was sent.
    pub(super) since: u32,
    /// How many ticks the server may take.
    limit: u32,
    /// Whether the next command belongs to the same group, and goes out with this one.
    is_followed: bool,
}

pub(super) enum ReplyTo {
    One(oneshot::Sender<RedisResult<Reply>>),
    /// A command of a batch, by its number. The batch has one channel: with one for each of thousands of commands, much memory
    /// would be held until the replies come.
    Many(mpsc::UnboundedSender<(usize, RedisResult<Reply>)>, usize),
}

impl Waiter {
    pub(super) fn answer(self, reply: RedisResult<Reply>) {
        // Sending fails when the caller is gone.
        match self.reply_to {
            ReplyTo::One(caller) => drop(caller.send(reply)),
            ReplyTo::Many(caller, at) => drop(caller.send((at, reply))),
        }
    }

    fn bytes(&self) -> usize {
        self.bytes as usize
    }

    pub(super) fn is_overdue(&self, now: u32) -> bool {
        // `>`, since the tick in which the command was queued or sent had begun before.
        self.has_waited_for(self.limit, now)
    }

    pub(super) fn has_waited_for(&self, ticks: u32, now: u32) -> bool {
        now.wrapping_sub(self.since) > ticks
    }
}

impl Queue {
    /// Appends a request's commands, each with where its reply goes. The commands of each group, of `group_size`, go out one right
    /// after the other, with none of another request in between. The server may take `limit` ticks for them.
    pub(super) fn push(
        &mut self,
        request: &Request<'_>,
        limit: u32,
        count: usize,
        group_size: usize,
        mut reply_to: impl FnMut(usize) -> ReplyTo,
    ) {
        for at in 0..count {
            let before = self.unsent.len();
            (request.encode)(at, &mut self.unsent);
            // No server takes a command of 4 GiB.
            let bytes = u32::try_from(self.unsent.len() - before).unwrap_or(u32::MAX);
            let is_followed = !(at + 1).is_multiple_of(group_size);
            self.waiting.push_back(Waiter { reply_to: reply_to(at), bytes, since: self.now, limit, is_followed });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Lets a tick pass, and returns the new time.
    pub(super) fn tick(&mut self) -> u32 {
        self.now = self.now.wrapping_add(1);
        self.now
    }

    /// Moves commands to `out`, which is empty, and their waiters to `expect`: at most so many commands and bytes, but always one
    /// whole group, however large.
    pub(super) fn take(&mut self, commands: usize, bytes: usize, out: &mut Vec<u8>, mut expect: impl FnMut(Waiter)) {
        /// Room that an empty queue keeps. The memory that a burst needed is given back.
        const KEPT_PLACES: usize = 1024;
        /// With so many bytes taken of a queue that never becomes empty, it is worth moving the rest to the front.
        const WORTH_MOVING: usize = 256 * 1024;
        if self.taken == 0 && self.waiting.len() <= commands && self.unsent.len() <= bytes {
            // The usual case copies nothing.
            mem::swap(out, &mut self.unsent);
            self.waiting.drain(..).for_each(expect);
            return;
        }
        let from = self.taken;
        let (mut count, mut is_followed) = (0, false);
        while let Some(next) = self.waiting.front()
            && (is_followed || count == 0 || (count < commands && self.taken - from + next.bytes() <= bytes))
        {
            self.taken += next.bytes();
            count += 1;
            is_followed = next.is_followed;
            self.waiting.pop_front().into_iter().for_each(&mut expect);
        }
        out.extend_from_slice(&self.unsent[from..self.taken]);
        if self.waiting.is_empty() {
            self.unsent = Vec::new();
            self.taken = 0;
            self.waiting.shrink_to(KEPT_PLACES);
        }
        if self.taken > WORTH_MOVING && self.taken * 2 > self.unsent.len() {
            self.unsent.drain(..self.taken);
            self.taken = 0;
        }
    }

    /// Drops all commands, and returns their waiters.
    pub(super) fn take_all(&mut self) -> VecDeque<Waiter> {
        self.unsent.clear();
        self.taken = 0;
        mem::take(&mut self.waiting)
    }

    /// Drops the commands of overdue waiters, and returns these. All commands of a group are overdue at the same time, so none is
    /// torn apart; but limits differ between requests, so overdue ones may stand between others.
    pub(super) fn take_overdue(&mut self, is_overdue: impl Fn(&Waiter) -> bool) -> VecDeque<Waiter> {
        let mut overdue = VecDeque::new();
        if !self.waiting.iter().any(&is_overdue) {
            return overdue;
        }
        let (unsent, mut at) = (mem::take(&mut self.unsent), mem::take(&mut self.taken));
        for waiter in mem::take(&mut self.waiting) {
            let command = &unsent[at..at + waiter.bytes()];
            at += waiter.bytes();
            if is_overdue(&waiter) {
                overdue.push_back(waiter);
            } else {
                self.unsent.extend_from_slice(command);
                self.waiting.push_back(waiter);
            }
        }
        overdue
    }
}

/// Answers with the same error to all. Not under the lock of the queue: it wakes callers.
pub(super) fn answer_all(waiting: impl IntoIterator<Item = Waiter>, error: &RedisError) {
    for waiter in waiting {
        waiter.answer(Err(error.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(queue: &mut Queue, command: &[u8], limit: u32, count: usize, group_size: usize) {
        let encode = |_: usize, out: &mut Vec<u8>| out.extend_from_slice(command);
        queue.push(&Request::new(Duration::ZERO, &encode), limit, count, group_size, |_| {
            ReplyTo::One(oneshot::channel().0)
        });
    }

    /// Ten commands of 100 bytes.
    fn queue(group_size: usize) -> Queue {
        let mut queue = Queue::default();
        push(&mut queue, &[b'x'; 100], 1, 10, group_size);
        queue
    }

    /// The bytes that go out together, until nothing is left.
    fn taken(queue: &mut Queue, commands: usize, bytes: usize) -> Vec<usize> {
        let mut taken = Vec::new();
        while !queue.is_empty() {
            let mut out = Vec::new();
            queue.take(commands, bytes, &mut out, drop);
            taken.push(out.len());
        }
        taken
    }

    #[test]
    fn bounds_by_commands_and_by_bytes_what_goes_out_together() {
        assert_eq!(taken(&mut queue(1), 100, 1_000), [1_000]);
        assert_eq!(taken(&mut queue(1), 4, 1_000), [400, 400, 200]);
        assert_eq!(taken(&mut queue(1), 100, 350), [300, 300, 300, 100]);
        assert_eq!(taken(&mut queue(1), 100, 50), [100; 10]);
        assert_eq!(taken(&mut queue(5), 2, 50), [500, 500], "a group was torn apart");
    }

    #[test]
    fn overdue_commands_are_dropped_from_between_others() {
        let mut queue = Queue { unsent: b"_".to_vec(), taken: 1, ..Queue::default() };
        for (command, limit) in [(b"a", 9), (b"b", 1), (b"c", 9)] {
            push(&mut queue, command, limit, 2, 2);
        }
        assert_eq!(queue.take_overdue(|waiter| waiter.is_overdue(2)).len(), 2, "a group was torn apart");
        let mut out = Vec::new();
        queue.take(10, 100, &mut out, drop);
        assert_eq!(out, b"aacc");
    }
}
