//! Updates in place, each attempt a transaction. What the server refuses becomes an invalidation.
//!
//! Updates of one key in this process queue here, rather than make each other's EXEC fail at the server.

use std::hash::{BuildHasher, RandomState};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redis::RedisError;
use tokio::sync::{Mutex, MutexGuard};

use super::errors::{connection_lost, is_dropped, is_migrating, unexpected_reply, without_arguments};
use super::resp::{command, encode_read};
use super::topology::Destination;
use super::transaction::{Transaction, Unfinished};
use super::without_scripts::MOST_HANG_UPS;
use super::{Redis, found, millis};
use crate::backend::{Attempt, Decision, KeyKind, Store, StoreResult, StoreUpdate};
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
    /// New connections in a row that were lost with their look.
    hang_ups: u32,
    /// There between a look and its commit, unless the server refuses transactions.
    watching: Option<Transaction>,
}

impl<'a> Update<'a> {
    pub(super) fn new(redis: &'a Redis, key: &'a Key, selection: &'a Selection) -> Self {
        Self {
            redis,
            key,
            selection,
            queued: None,
            destination: None,
            is_lease_deleted: false,
            hang_ups: 0,
            watching: None,
        }
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
        let (key, mut read) = (self.key.as_str().as_bytes(), Vec::new());
        encode_read(&mut read, self.key, self.selection);
        // PTTL before the read, as in `read`.
        let looks = vec![command(&[b"PTTL", key]), read];
        let refusal =
            match Transaction::begin(&destination, self.redis.operation_timeout, self.key, &[key], looks).await {
                Ok((transaction, looked)) => {
                    let [left, read] = <[_; 2]>::try_from(looked).map_err(|_| unexpected_reply())?;
                    let found = found(left?.remaining(), read, self.selection)?;
                    self.watching = Some(transaction);
                    return Ok(Some(Attempt::Done(found)));
                }
                Err(Unfinished::Lost { was_idle }) => {
                    self.hang_ups += u32::from(!was_idle);
                    if self.hang_ups < MOST_HANG_UPS {
                        return Ok(None);
                    }
                    connection_lost()
                }
                Err(Unfinished::Elsewhere(error)) => return self.follow(&destination, &error).await.map(Some),
                Err(Unfinished::Refused(error)) => error,
                Err(Unfinished::Failed(error)) => return Err(error.into()),
            };
        // Shown nothing, the caller decides to delete, and the commit invalidates.
        self.warn_refused(&refusal);
        Ok(Some(Attempt::Done(None)))
    }

    async fn execute(&mut self, decision: &Decision) -> StoreResult<Attempt<bool>> {
        let Some(mut transaction) = self.watching.take() else {
            return self.invalidate().await;
        };
        let (limit, replicas) = (self.redis.operation_timeout, self.redis.acknowledged_by);
        if replicas.is_some() && matches!(decision, Decision::Delete) {
            // Dropped first: the invalidation needs a connection of its own, and there may be no more than this one.
            drop(transaction);
            return self.invalidate().await;
        }
        match transaction.end(limit, writes(self.key, decision, self.is_lease_deleted)).await {
            Ok(true) => {}
            Ok(false) => {
                transaction.give_back();
                return Ok(Attempt::Again);
            }
            Err(Unfinished::Elsewhere(error)) => return self.follow(&transaction.destination, &error).await,
            Err(Unfinished::Refused(error)) => {
                drop(transaction);
                self.warn_refused(&error);
                return self.invalidate().await;
            }
            // If EXEC comes late, K was touched since its WATCH, and it does nothing.
            Err(Unfinished::Failed(error)) if is_dropped(&error) => {
                drop(transaction);
                return self.invalidate().await;
            }
            Err(unfinished) => return Err(unfinished.into_error().into()),
        }
        if let Some(replicas) = replicas {
            replicas.wait(&mut transaction.connection, limit).await?;
        }
        let (server, epoch) = (transaction.destination.server.clone(), transaction.connection.epoch.clone());
        transaction.give_back();
        if !server.shared.is_still_at(&epoch).await {
            // Reads over the new shared connection may not see what was written.
            return self.invalidate().await;
        }
        Ok(Attempt::Done(matches!(decision, Decision::Apply { .. })))
    }

    /// In place of a transaction that the server refuses, or whose outcome is unknown. Deleting needs no memory.
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

/// The commands between MULTI and EXEC.
fn writes(key: &Key, decision: &Decision, is_lease_deleted: bool) -> Vec<Vec<u8>> {
    let (entry, mut commands) = (key.as_str().as_bytes(), Vec::new());
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
    commands
}
