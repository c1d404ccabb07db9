//! Updates in place: WATCH, look, decide, MULTI .. EXEC.
//!
//! WATCH belongs to a socket, and any EXEC on it ends it: a shared connection would lose updates. So each update has a
//! connection for itself, from a small pool, and only one whose transaction ended as expected goes back there. These
//! connections never reconnect by themselves, so a guard can't be lost between WATCH and EXEC unnoticed.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, Object, PoolError, RecycleError, RecycleResult};
use futures_util::FutureExt;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};
use tokio::runtime::{self, Handle};
use tokio::sync::Mutex;

use super::connect::Link;
use super::errors::{
    is_dropped, is_elsewhere, is_of_replica, is_on_the_move, is_too_many_clients, not_answered, unexpected_reply,
    without_arguments,
};
use super::resp::{Reply, encode, encode_argument, encode_array, encode_read};
use super::server::Server;
use super::shared::{Epoch, Shared};
use super::topology::Destination;
use super::{Redis, found, millis};
use crate::backend::deadline::within;
use crate::backend::{Decide, Decision, Selection, StepError, Steps, Swept};
use crate::key::Key;
use crate::pause::jittered;
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
        const LONGEST_PAUSE: Duration = Duration::from_millis(16);
        let topology = &redis.topology;
        let _turn = self.queue(key).lock().await;
        let mut pause = Duration::from_millis(1);
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
            tokio::time::sleep(jittered(pause)).await;
            pause = LONGEST_PAUSE.min(pause * 2);
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
        let mut connection = match connection(server).await {
            Ok(connection) => connection,
            Err(error) if is_dropped(&error) => return Ok(Attempt::Again),
            Err(error) if is_too_many_clients(&error) => return Ok(self.refused(key, &error)),
            Err(error) => return Err(error.into()),
        };
        connection.clean = false;
        let mut commands = Commands::new(*asking);
        commands.add(|out| encode(out, &[b"WATCH", key.as_str().as_bytes()]));
        // PTTL comes before the read, as in `read`.
        commands.add(|out| encode(out, &[b"PTTL", key.as_str().as_bytes()]));
        commands.add(|out| encode_read(out, key, selection));
        let looked = match self.exchange(&mut connection, commands).await {
            Ok(looked) => looked,
            // Nothing is written yet, so a connection that was dropped while idle, silently or not, is no error.
            Err(error) if is_dropped(&error) => return Ok(Attempt::Again),
            Err(error) if error.is_timeout() && connection.was_idle => {
                // The others that are idle may have been dropped too.
                server.updates.retain(|_, _| false);
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
        let replies = self.exchange(&mut connection, transaction(key, &decision, written, *asking)).await?;
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
        connection.clean = true;
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
    async fn exchange(&self, connection: &mut Exclusive, commands: Commands) -> RedisResult<Vec<RedisResult<Reply>>> {
        let Commands { encoded, count, asking } = commands;
        let exchange = connection.link.exchange(&encoded, count);
        let mut replies = within(self.operation_timeout, exchange).await.ok_or_else(not_answered)??;
        if asking {
            // Every other reply is one to ASKING.
            let mut at = 0;
            replies.retain(|_| {
                at += 1;
                at % 2 == 0
            });
        }
        Ok(replies)
    }
}

async fn connection(server: &Server) -> RedisResult<Object<Exclusives>> {
    server.updates.get().await.map_err(|error| match error {
        PoolError::Backend(error) => error,
        error => (ErrorKind::Client, "there is no connection for an update", error.to_string()).into(),
    })
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
            let set: Vec<_> = changes.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))).collect();
            if !set.is_empty() {
                commands.add(|out| {
                    encode_array(out, 2 + 2 * set.len());
                    encode_argument(out, b"HSET");
                    encode_argument(out, entry);
                    for (name, value) in &set {
                        encode_argument(out, name.as_bytes());
                        encode_argument(out, value);
                    }
                });
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

/// A connection that only one update uses at a time.
pub(super) struct Exclusive {
    link: Link,
    /// Whether its last transaction ended as expected. It isn't while one runs, so that an error or a cancellation
    /// keeps it from being used again: the server may still be working on it, or still watch a key.
    clean: bool,
    /// Whether it has been used before: the network may have dropped it since.
    was_idle: bool,
    /// The epoch that it was made in, and the runtime: it ends with either.
    epoch: Epoch,
    runtime: runtime::Id,
}

/// Opens connections for updates, and says which of them may be used again.
pub(super) struct Exclusives {
    shared: Arc<Shared>,
}

impl Exclusives {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Manager for Exclusives {
    type Type = Exclusive;
    type Error = RedisError;

    async fn create(&self) -> RedisResult<Exclusive> {
        // Boxed, as it is rare: the pool's future takes its memory three times.
        let connect = async {
            let (link, epoch) = self.shared.connect_beside().await?;
            Ok(Exclusive { link, clean: true, was_idle: false, epoch, runtime: Handle::current().id() })
        };
        connect.boxed().await
    }

    async fn recycle(&self, exclusive: &mut Exclusive, _metrics: &Metrics) -> RecycleResult<RedisError> {
        if !exclusive.clean {
            return Err(RecycleError::message("its last transaction did not end"));
        }
        if !self.shared.is_current(&exclusive.epoch) {
            return Err(RecycleError::message("the shared connection may be connected to another server by now"));
        }
        if exclusive.runtime != Handle::current().id() {
            return Err(RecycleError::message("its runtime may end, or not be driven"));
        }
        exclusive.was_idle = true;
        Ok(())
    }
}
