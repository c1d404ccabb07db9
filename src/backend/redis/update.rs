//! Updates in place: WATCH and look, then MULTI .. EXEC.
//!
//! WATCH belongs to a socket, and any EXEC on it ends it: a shared connection would lose updates. So each attempt has a
//! connection for itself, which never reconnects: a WATCH can't be lost before its EXEC unnoticed.
//!
//! Updates of one key in this process queue here, rather than make each other's EXEC fail at the server.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::iter;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};
use tokio::runtime::{self, Handle};
use tokio::sync::{Mutex, MutexGuard, OwnedSemaphorePermit, Semaphore};

use super::connect::Link;
use super::errors::{
    is_dropped, is_elsewhere, is_migrating, is_of_replica, is_too_many_clients, not_answered, unexpected_reply,
    without_arguments,
};
use super::resp::{Reply, command, encode_read};
use super::shared::{Epoch, Shared};
use super::topology::Destination;
use super::{Redis, found, millis};
use crate::backend::deadline::within;
use crate::backend::{Attempt, Decision, KeyKind, Store, StoreError, StoreResult, StoreUpdate};
use crate::backoff::Backoff;
use crate::record::{Found, Key, Selection};
use crate::repeats::Repeats;

/// Far more queues than connections, so that unrelated keys seldom wait for each other.
const QUEUES: usize = 1024;

pub(super) struct Queues {
    queues: Vec<Mutex<()>>,
    hasher: RandomState,
    repeats: Repeats,
}

impl Queues {
    pub(super) fn new() -> Self {
        let queues = (0..QUEUES).map(|_| Mutex::new(())).collect();
        Self { queues, hasher: RandomState::new(), repeats: Repeats::default() }
    }

    fn of(&self, key: &Key) -> &Mutex<()> {
        let index = usize::try_from(self.hasher.hash_one(key) % QUEUES as u64).unwrap_or(0);
        &self.queues[index]
    }
}

/// A connection that belongs to one update at a time, from WATCH to EXEC. It is used again only if its transaction has ended as
/// expected: after an error or a cancellation, the server may still be working on it, or still watch a key.
struct Exclusive {
    link: Link,
    /// Whether it has been idle before: then the network may have cut it unnoticed.
    was_idle: bool,
    epoch: Epoch,
    runtime: runtime::Id,
}

/// The connections of updates to one server.
pub(super) struct Exclusives {
    shared: Arc<Shared>,
    most: usize,
    /// A permit for each connection that may be in use.
    permits: Arc<Semaphore>,
    idle: parking_lot::Mutex<VecDeque<Exclusive>>,
}

impl Exclusives {
    pub(super) fn new(shared: Arc<Shared>, most: usize) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        Self { shared, most, permits: Arc::new(Semaphore::new(most)), idle: parking_lot::Mutex::default() }
    }

    /// How many updates have a connection or are making one, and how many connections are idle.
    pub(super) fn in_use_and_idle(&self) -> (usize, usize) {
        (self.most - self.permits.available_permits(), self.idle.lock().len())
    }

    /// Waits for a permit, and takes an idle connection for it, or makes one.
    async fn take(&self) -> RedisResult<(OwnedSemaphorePermit, Exclusive)> {
        let permit = self.permits.clone().acquire_owned().await.expect("nobody closes the semaphore");
        let runtime = Handle::current().id();
        // In another epoch, the shared connection may lead to another server. Another runtime may end, or not be driven.
        let is_usable = |idle: &Exclusive| self.shared.is_current(&idle.epoch) && idle.runtime == runtime;
        if let Some(idle) = iter::from_fn(|| self.idle.lock().pop_front()).find(is_usable) {
            return Ok((permit, idle));
        }
        // Boxed, as it is rare.
        let (link, epoch) = self.shared.connect_beside().boxed().await?;
        Ok((permit, Exclusive { link, was_idle: false, epoch, runtime }))
    }
}

pub(super) struct Update<'a> {
    redis: &'a Redis,
    key: &'a Key,
    selection: &'a Selection,
    /// The front of the key's queue, from the first attempt to the end.
    queued: Option<MutexGuard<'a, ()>>,
    /// The server that the key was redirected to.
    destination: Option<Destination>,
    /// Whether the lease was deleted before the transaction, since it may be at another server than the entry. That is as good
    /// as in one step: a load that has begun in between has read what this update is about.
    is_lease_deleted: bool,
    /// There between a look and its commit, unless the server takes no more connections.
    watching: Option<(OwnedSemaphorePermit, Exclusive, Destination)>,
}

impl<'a> Update<'a> {
    pub(super) fn new(redis: &'a Redis, key: &'a Key, selection: &'a Selection) -> Self {
        Self { redis, key, selection, queued: None, destination: None, is_lease_deleted: false, watching: None }
    }

    /// `None`: nothing was sent, or no reply came, over a connection that was lost. The next look may have a better one.
    async fn look(&mut self) -> StoreResult<Option<Attempt<Option<Found>>>> {
        if self.queued.is_none() {
            self.queued = Some(self.redis.queues.of(self.key).lock().await);
        }
        let destination = match &self.destination {
            Some(redirected) => redirected.clone(),
            None => self.redis.topology.destination(self.key).await?,
        };
        let (permit, mut connection) = match destination.server.updates.take().await {
            Ok(taken) => taken,
            Err(error) if is_dropped(&error) => return Ok(None),
            Err(error) if is_too_many_clients(&error) => {
                // Shown nothing, the caller decides to delete, and the commit invalidates.
                self.warn_refused(&error);
                return Ok(Some(Attempt::Done(None)));
            }
            Err(error) => return Err(error.into()),
        };
        let (key, mut read) = (self.key.as_str().as_bytes(), Vec::new());
        encode_read(&mut read, self.key, self.selection);
        // PTTL before the read, as in `read`.
        let mut commands = vec![command(&[b"WATCH", key]), command(&[b"PTTL", key]), read];
        if destination.asking {
            commands = commands.into_iter().flat_map(|next| [command(&[b"ASKING"]), next]).collect();
        }
        let looked = match self.exchange(&mut connection, &commands).await {
            Ok(looked) if destination.asking => looked.into_iter().skip(1).step_by(2).collect(),
            Ok(looked) => looked,
            // A connection that was cut while idle, silently or not, is no reason to fail: nothing is written yet.
            Err(error) if is_dropped(&error) => return Ok(None),
            Err(error) if error.is_timeout() && connection.was_idle => {
                // The others that are idle may have been cut too.
                destination.server.updates.idle.lock().clear();
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(error) = looked.iter().filter_map(|reply| reply.as_ref().err()).find(|error| is_elsewhere(error)) {
            return self.follow(&destination, error).await.map(Some);
        }
        let [watched, left, read] = <[_; 3]>::try_from(looked).map_err(|_| unexpected_reply())?;
        watched?;
        let found = found(left?.remaining(), read, self.selection)?;
        self.watching = Some((permit, connection, destination));
        Ok(Some(Attempt::Done(found)))
    }

    async fn execute(&mut self, decision: &Decision) -> StoreResult<Attempt<bool>> {
        let Some((_permit, mut connection, destination)) = self.watching.take() else {
            return self.invalidate().await;
        };
        let server = &destination.server;
        let commands = transaction(self.key, decision, self.is_lease_deleted, destination.asking);
        let replies = self.exchange(&mut connection, &commands).await?;
        // EXEC's error only says that a command before it was refused. That command's error says why.
        let refusal = replies.iter().find_map(|reply| reply.as_ref().err());
        if let Some(error) = refusal.filter(|error| is_elsewhere(error)) {
            return self.follow(&destination, error).await;
        }
        let attempt = match (replies.last().ok_or_else(unexpected_reply)?, refusal) {
            (Ok(reply), _) if reply.is_nil() => Attempt::Again,
            (Ok(_), _) => Attempt::Done(matches!(decision, Decision::Apply { .. })),
            (Err(_), Some(error)) if is_of_replica(error) => {
                server.shared.leave(&connection.epoch);
                return Err(error.clone().into());
            }
            (Err(end), Some(error)) if end.kind() == ErrorKind::Server(ServerErrorKind::ExecAbort) => {
                // For lack of memory, for example.
                self.warn_refused(error);
                return self.invalidate().await;
            }
            (Err(end), _) => return Err(end.clone().into()),
        };
        if !server.shared.is_still_at(&connection.epoch).await {
            // Reads over the new shared connection may not see what was written.
            let cause = "the connection was replaced before the update was confirmed".into();
            let advice = "it is made up for by an invalidation";
            return Err(StoreError::Failed { advice, cause, answered: Some(true) });
        }
        connection.was_idle = true;
        server.updates.idle.lock().push_back(connection);
        Ok(attempt)
    }

    /// In place of a transaction that the server refuses. Deleting needs no memory and no connection of its own.
    async fn invalidate(&mut self) -> StoreResult<Attempt<bool>> {
        self.redis.invalidate(self.key).await.map(|_was_there| Attempt::Done(false))
    }

    /// Finds out where the next attempt goes, after nothing was written because the key, or its lease, is at another server.
    async fn follow<R>(&mut self, from: &Destination, error: &RedisError) -> StoreResult<Attempt<R>> {
        let topology = &self.redis.topology;
        if is_migrating(error) && !self.is_lease_deleted {
            self.redis.delete(self.key, KeyKind::Lease).await?;
            self.is_lease_deleted = true;
            return Ok(Attempt::Again);
        }
        self.destination = topology.redirected(self.key, from, error);
        if self.destination.is_some() || is_migrating(error) { Ok(Attempt::Again) } else { Err(error.clone().into()) }
    }

    fn warn_refused(&self, error: &RedisError) {
        let (keys, error) = (self.key.prefix(), without_arguments(error));
        self.redis.queues.repeats.warn(format!("{keys} {error}"), |times| {
            tracing::warn!(keys, error, times, "the server refuses an update: the entry is invalidated");
        });
    }

    async fn exchange(
        &mut self,
        connection: &mut Exclusive,
        commands: &[Vec<u8>],
    ) -> RedisResult<Vec<RedisResult<Reply>>> {
        within(self.redis.operation_timeout, connection.link.exchange(commands)).await.ok_or_else(not_answered)?
    }
}

impl StoreUpdate for Update<'_> {
    fn watch(&mut self) -> BoxFuture<'_, StoreResult<Attempt<Option<Found>>>> {
        let topology = &self.redis.topology;
        async {
            let mut backoff = Backoff::between_attempts();
            loop {
                // A result of this step counts as an answer of the server, so a look without a reply is repeated here.
                match self.look().await.inspect_err(|_| topology.refresh())? {
                    Some(looked) => return Ok(looked),
                    None => tokio::time::sleep(backoff.next()).await,
                }
            }
        }
        .boxed()
    }

    fn commit(&mut self, decision: Decision) -> BoxFuture<'_, StoreResult<Attempt<bool>>> {
        let topology = &self.redis.topology;
        async move { self.execute(&decision).await.inspect_err(|_| topology.refresh()) }.boxed()
    }
}

/// MULTI .. EXEC.
fn transaction(key: &Key, decision: &Decision, is_lease_deleted: bool, asking: bool) -> Vec<Vec<u8>> {
    let entry = key.as_str().as_bytes();
    // ASKING holds until EXEC.
    let mut commands = if asking { vec![command(&[b"ASKING"])] } else { Vec::new() };
    commands.push(command(&[b"MULTI"]));
    match decision {
        Decision::Apply { changes, ttl } => {
            let set = changes.iter().filter_map(|(name, value)| Some([name.as_bytes(), value.as_deref()?]));
            let set: Vec<_> = [&b"HSET"[..], entry].into_iter().chain(set.flatten()).collect();
            if set.len() > 2 {
                commands.push(command(&set));
            }
            let removed = changes.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| name.as_bytes());
            let removed: Vec<_> = [&b"HDEL"[..], entry].into_iter().chain(removed).collect();
            if removed.len() > 2 {
                commands.push(command(&removed));
            }
            if let Some(ttl) = ttl {
                commands.push(command(&[b"PEXPIRE", entry, millis(*ttl).as_bytes()]));
            }
        }
        Decision::Delete => commands.push(command(&[b"DEL", entry])),
    }
    if !is_lease_deleted {
        commands.push(command(&[b"DEL", key.lock().as_bytes()]));
    }
    commands.push(command(&[b"EXEC"]));
    commands
}
