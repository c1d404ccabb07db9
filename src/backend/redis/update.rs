//! Updates in place: WATCH, look, decide, MULTI .. EXEC.
//!
//! WATCH belongs to a socket, and any EXEC on it ends it: a shared connection would lose updates. So each update has a
//! connection for itself, from a small pool, and only one whose transaction ended as expected goes back there. These
//! connections never reconnect by themselves, so a guard can't be lost between WATCH and EXEC unnoticed.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};
use tokio::runtime::{self, Handle};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

use super::connect::Link;
use super::errors::{
    is_dropped, is_elsewhere, is_of_replica, is_on_the_move, is_too_many_clients, not_answered, unexpected_reply,
    without_arguments,
};
use super::resp::{Reply, encode, encode_read};
use super::shared::{Epoch, Shared};
use super::topology::Destination;
use super::{Redis, found, millis};
use crate::backend::deadline::within;
use crate::backend::{Decide, Decision, Selection, StepError, Steps, Swept};
use crate::key::Key;
use crate::pause::Backoff;
use crate::repeats::Repeats;

/// As many keys can be updated at a time in this process as there are connections; many more queues make it rare that those
/// who wait for one meet in a queue.
const QUEUES: usize = 1024;

pub(super) struct Updates {
    /// Updates of one key wait for each other here, rather than refuse each other at the server.
    queues: Vec<Mutex<()>>,
    hasher: RandomState,
    operation_timeout: Duration,
    repeats: Repeats,
}

/// What a transaction writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    EntryAndLease,
    /// The lease was deleted before, since it may be at another server than the entry. That is as good: a load that has
    /// begun in between has read what this update is about.
    Entry,
}

/// How one attempt ended.
enum Attempt {
    /// The transaction was carried out; whether changes were applied.
    Done(bool),
    /// Nothing was written: the entry has changed since it was looked at, or the connection had been lost.
    Again,
    /// Nothing was written: the server refuses such a transaction, as for lack of memory, or one more connection.
    Refused,
    /// Nothing was written: the key, or its lease, is at another server.
    Elsewhere(RedisError),
}

impl Updates {
    pub(super) fn new(operation_timeout: Duration) -> Self {
        let queues = (0..QUEUES).map(|_| Mutex::new(())).collect();
        Self { queues, hasher: RandomState::new(), operation_timeout, repeats: Repeats::default() }
    }

    /// Updates an entry; `None` when the server refuses the transaction. Tries until its caller drops it.
    pub(super) async fn run(
        &self,
        redis: &Redis,
        key: &Key,
        selection: &Selection,
        decide: &mut Decide<'_>,
    ) -> Result<Option<bool>, StepError> {
        let topology = &redis.topology;
        let _turn = self.queue(key).lock().await;
        let mut pauses = Backoff::new(Duration::from_millis(1), Duration::from_millis(16));
        let mut destination = topology.destination(key).await?;
        let mut written = Written::EntryAndLease;
        loop {
            let attempt = self.attempt(&destination, written, key, selection, decide).await;
            match attempt.inspect_err(|_| topology.refresh())? {
                Attempt::Done(applied) => return Ok(Some(applied)),
                Attempt::Refused => return Ok(None),
                Attempt::Again => {}
                Attempt::Elsewhere(error) if is_on_the_move(&error) && written == Written::EntryAndLease => {
                    redis.delete(key, Swept::Leases).await?;
                    written = Written::Entry;
                }
                Attempt::Elsewhere(error) => match topology.redirected(key, &destination, &error) {
                    Some(next) => destination = next,
                    None if is_on_the_move(&error) => destination = topology.destination(key).await?,
                    None => {
                        topology.refresh();
                        return Err(error.into());
                    }
                },
            }
            tokio::time::sleep(pauses.next()).await;
        }
    }

    fn queue(&self, key: &Key) -> &Mutex<()> {
        let index = usize::try_from(self.hasher.hash_one(key) % QUEUES as u64).unwrap_or(0);
        &self.queues[index]
    }

    async fn attempt(
        &self,
        Destination { server, asking }: &Destination,
        written: Written,
        key: &Key,
        selection: &Selection,
        decide: &mut Decide<'_>,
    ) -> Result<Attempt, StepError> {
        let (_turn, mut connection) = match server.updates.take().await {
            Ok(taken) => taken,
            Err(error) if is_dropped(&error) => return Ok(Attempt::Again),
            Err(error) if is_too_many_clients(&error) => return Ok(self.refused(key, &error)),
            Err(error) => return Err(error.into()),
        };
        let mut commands = Commands::new(*asking);
        commands.add(|out| encode(out, &[b"WATCH", key.as_str().as_bytes()]));
        // PTTL comes before the read, as in `read`.
        commands.add(|out| encode(out, &[b"PTTL", key.as_str().as_bytes()]));
        commands.add(|out| encode_read(out, key, selection));
        let looked = match self.exchange(&mut connection.link, commands).await {
            Ok(looked) => looked,
            // Nothing is written yet, so a connection that was dropped while idle, silently or not, is no error.
            Err(error) if is_dropped(&error) => return Ok(Attempt::Again),
            Err(error) if error.is_timeout() && connection.was_idle => {
                // The others that are idle may have been dropped too.
                server.updates.idle().clear();
                return Ok(Attempt::Again);
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(error) = looked.iter().filter_map(|reply| reply.as_ref().err()).find(|error| is_elsewhere(error)) {
            return Ok(Attempt::Elsewhere(error.clone()));
        }
        let [watched, left, read] = <[_; 3]>::try_from(looked).map_err(|_| unexpected_reply())?;
        watched?;
        let found = found(left?.remaining(), read, selection)?;
        let decision = decide(found).map_err(StepError::Refused)?;
        let applies = matches!(decision, Decision::Apply { .. });
        let replies = self.exchange(&mut connection.link, transaction(key, &decision, written, *asking)).await?;
        // With EXEC's error at the end comes that of the command for which it is refused.
        let refusal = replies.iter().find_map(|reply| reply.as_ref().err());
        if let Some(error) = refusal.filter(|error| is_elsewhere(error)) {
            return Ok(Attempt::Elsewhere(error.clone()));
        }
        let attempt = match (replies.last().ok_or_else(unexpected_reply)?, refusal) {
            (Ok(reply), _) if reply.is_nil() => Attempt::Again,
            (Ok(_), _) => Attempt::Done(applies),
            (Err(_), Some(error)) if is_of_replica(error) => {
                server.shared.leave(&connection.epoch);
                return Err(error.clone().into());
            }
            (Err(end), Some(error)) if end.kind() == ErrorKind::Server(ServerErrorKind::ExecAbort) => {
                return Ok(self.refused(key, error));
            }
            (Err(end), _) => return Err(end.clone().into()),
        };
        if !server.shared.is_still_at(&connection.epoch).await {
            // Those who read over the shared connection may not see what was written.
            let cause = "the connection was replaced before the update was confirmed".into();
            return Err(StepError::Failed {
                advice: "it is made up for by an invalidation",
                cause,
                answered: Some(true),
            });
        }
        connection.was_idle = true;
        server.updates.idle().push_back(connection);
        Ok(attempt)
    }

    fn refused(&self, key: &Key, error: &RedisError) -> Attempt {
        let (keys, error) = (key.prefix(), without_arguments(error));
        self.repeats.warn(format!("{keys} {error}"), |times| {
            tracing::warn!(keys, error, times, "the server refuses an update: the entry is invalidated");
        });
        Attempt::Refused
    }

    /// Sends commands and returns their replies, within `operation_timeout`.
    async fn exchange(&self, link: &mut Link, commands: Commands) -> RedisResult<Vec<RedisResult<Reply>>> {
        let Commands { encoded, count, asking } = commands;
        let exchange = link.exchange(&encoded, count);
        let replies = within(self.operation_timeout, exchange).await.ok_or_else(not_answered)??;
        // With ASKING, every other reply is one to that.
        Ok(if asking { replies.into_iter().skip(1).step_by(2).collect() } else { replies })
    }
}

/// Commands to be sent together.
struct Commands {
    encoded: Vec<u8>,
    count: usize,
    /// Whether each is preceded by ASKING: the key is on its way to the server.
    asking: bool,
}

impl Commands {
    fn new(asking: bool) -> Self {
        Self { encoded: Vec::new(), count: 0, asking }
    }

    fn add(&mut self, encode_command: impl FnOnce(&mut Vec<u8>)) {
        if self.asking {
            encode(&mut self.encoded, &[b"ASKING"]);
            self.count += 1;
        }
        encode_command(&mut self.encoded);
        self.count += 1;
    }
}

/// MULTI .. EXEC.
fn transaction(key: &Key, decision: &Decision, written: Written, asking: bool) -> Commands {
    let (entry, lease) = (key.as_str().as_bytes(), key.lock().as_bytes());
    let mut commands = Commands::new(false);
    if asking {
        // It holds until EXEC.
        commands.add(|out| encode(out, &[b"ASKING"]));
    }
    commands.add(|out| encode(out, &[b"MULTI"]));
    match decision {
        Decision::Apply { changes, ttl } => {
            let set = changes.iter().filter_map(|(name, value)| Some([name.as_bytes(), value.as_deref()?]));
            let set: Vec<_> = [&b"HSET"[..], entry].into_iter().chain(set.flatten()).collect();
            if set.len() > 2 {
                commands.add(|out| encode(out, &set));
            }
            let removed = changes.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| name.as_bytes());
            let removed: Vec<_> = [&b"HDEL"[..], entry].into_iter().chain(removed).collect();
            if removed.len() > 2 {
                commands.add(|out| encode(out, &removed));
            }
            if let Some(ttl) = ttl {
                commands.add(|out| encode(out, &[b"PEXPIRE", entry, millis(*ttl).as_bytes()]));
            }
        }
        Decision::Drop => commands.add(|out| encode(out, &[b"DEL", entry])),
    }
    if written == Written::EntryAndLease {
        commands.add(|out| encode(out, &[b"DEL", lease]));
    }
    commands.add(|out| encode(out, &[b"EXEC"]));
    commands
}

/// A connection that only one update uses at a time. It is used again only if its transaction has ended as expected: after an
/// error or a cancellation, the server may still be working on it, or still watch a key.
struct Exclusive {
    link: Link,
    /// Whether it has been used before: the network may have dropped it since.
    was_idle: bool,
    epoch: Epoch,
    runtime: runtime::Id,
    _counted: Arc<()>,
}

/// The connections of updates to one server.
pub(super) struct Exclusives {
    shared: Arc<Shared>,
    /// As many as there may be connections.
    turns: Semaphore,
    idle: parking_lot::Mutex<VecDeque<Exclusive>>,
    /// Each connection has a clone.
    counted: Arc<()>,
}

impl Exclusives {
    pub(super) fn new(shared: Arc<Shared>, most: usize) -> Self {
        let turns = Semaphore::new(most.min(Semaphore::MAX_PERMITS));
        Self { shared, turns, idle: parking_lot::Mutex::default(), counted: Arc::default() }
    }

    /// How many connections are in use, and how many are idle.
    pub(super) fn in_use_and_idle(&self) -> (usize, usize) {
        let idle = self.idle();
        ((Arc::strong_count(&self.counted) - 1).saturating_sub(idle.len()), idle.len())
    }

    /// Waits for a turn, and takes an idle connection for it, or makes one.
    async fn take(&self) -> RedisResult<(SemaphorePermit<'_>, Exclusive)> {
        let turn = self.turns.acquire().await.expect("nobody closes the semaphore");
        let runtime = Handle::current().id();
        // In another epoch, the shared connection may lead to another server. Another runtime may end, or not be driven.
        let is_usable = |idle: &Exclusive| self.shared.is_current(&idle.epoch) && idle.runtime == runtime;
        if let Some(idle) = iter::from_fn(|| self.idle().pop_front()).find(is_usable) {
            return Ok((turn, idle));
        }
        // Boxed, as it is rare.
        let (link, epoch) = self.shared.connect_beside().boxed().await?;
        Ok((turn, Exclusive { link, was_idle: false, epoch, runtime, _counted: self.counted.clone() }))
    }

    fn idle(&self) -> parking_lot::MutexGuard<'_, VecDeque<Exclusive>> {
        self.idle.lock()
    }
}
