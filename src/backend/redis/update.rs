//! Updates in place: WATCH, look, decide, MULTI .. EXEC.
//!
//! WATCH belongs to a socket, and any EXEC on it ends it: a shared connection would lose updates. So each update has a
//! connection for itself, from a small pool, and only one whose transaction ended as expected goes back there. These
//! connections never reconnect by themselves, so a guard can't be lost between WATCH and EXEC unnoticed.

use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, Object, PoolError, RecycleError, RecycleResult};
use futures_util::FutureExt;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult};
use redis::{ServerErrorKind, Value};
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use super::connect::Generation;
use super::errors::{is_elsewhere, is_on_the_move, unexpected_reply, without_arguments};
use super::node::{Destination, Node};
use super::replies::{command, found, look};
use super::sentinel::Master;
use super::servers::Servers;
use super::{millis, revoke};
use crate::backend::deadline::within;
use crate::backend::{Decide, Decision, Selection, StepError};
use crate::key::Key;
use crate::pause::jittered;

/// As many keys can be updated at a time in this process as there are connections; many more queues make it rare that those
/// who wait for one meet in a queue.
const QUEUES: usize = 1024;

pub(super) struct Updates {
    /// Updates of one key wait for each other here, rather than refuse each other at the server.
    queues: Vec<Mutex<()>>,
    hasher: RandomState,
    operation_timeout: Duration,
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
    /// Nothing was written: the entry has changed since it was looked at, or the connection had been cut.
    Again,
    /// Nothing was written: the server refuses such a transaction, as for lack of memory.
    Refused,
    /// Nothing was written: the key, or its lease, is at another server.
    Elsewhere(RedisError),
}

impl Updates {
    pub(super) fn new(operation_timeout: Duration) -> Self {
        Self { queues: (0..QUEUES).map(|_| Mutex::new(())).collect(), hasher: RandomState::new(), operation_timeout }
    }

    /// Updates an entry; `None` when the server refuses the transaction. Tries until its caller drops it.
    pub(super) async fn run(
        &self,
        servers: &Servers,
        key: &Key,
        selection: &Selection,
        decide: &mut Decide<'_>,
    ) -> Result<Option<bool>, StepError> {
        const LONGEST_PAUSE: Duration = Duration::from_millis(16);
        let _turn = self.queue(key).lock().await;
        let mut pause = Duration::from_millis(1);
        let mut destination = servers.destination(key).await?;
        let mut written = Written::EntryAndLease;
        loop {
            let attempt = self.attempt(&destination, written, key, selection, decide).await;
            match attempt.inspect_err(|_| servers.failed())? {
                Attempt::Done(applied) => return Ok(Some(applied)),
                Attempt::Refused => return Ok(None),
                Attempt::Again => {}
                Attempt::Elsewhere(error) if is_on_the_move(&error) && written == Written::EntryAndLease => {
                    revoke(servers, key).await?;
                    written = Written::Entry;
                }
                Attempt::Elsewhere(error) => match servers.redirected(key, &destination, &error) {
                    Some(next) => destination = next,
                    None if is_on_the_move(&error) => destination = servers.destination(key).await?,
                    None => {
                        servers.failed();
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
        Destination { node, asking }: &Destination,
        written: Written,
        key: &Key,
        selection: &Selection,
        decide: &mut Decide<'_>,
    ) -> Result<Attempt, StepError> {
        let mut connection = connection(node).await?;
        connection.clean = false;
        let mut commands = Pipeline::with_capacity(3);
        commands.add_command(command("WATCH", 1, key.as_str().len()).arg(key.as_str()).take());
        for command in look(key, selection) {
            commands.add_command(command);
        }
        if *asking {
            commands = each_asking(&commands);
        }
        let looked = self.send::<Vec<RedisResult<Value>>>(&mut connection, commands.ignore_errors()).await?;
        let looked = match looked {
            Ok(looked) => looked,
            Err(error) if error.is_connection_dropped() => return Ok(Attempt::Again),
            Err(error) => return Err(error.into()),
        };
        if let Some(error) = looked.iter().filter_map(|reply| reply.as_ref().err()).find(|error| is_elsewhere(error)) {
            return Ok(Attempt::Elsewhere(error.clone()));
        }
        let [watched, left, entry] = looked.try_into().map_err(|_| unexpected_reply())?;
        watched?;
        let decision = decide(found(left, entry, selection)?).map_err(StepError::Refused)?;
        let applies = matches!(decision, Decision::Apply { .. });
        let commands = transaction(key, decision, written, *asking);
        let replies = self.send::<Vec<RedisResult<Value>>>(&mut connection, &commands).await??;
        // With EXEC's error at the end comes that of the command for which it is refused.
        let refused = replies.iter().find_map(|reply| reply.as_ref().err());
        if let Some(error) = refused.filter(|error| is_elsewhere(error)) {
            return Ok(Attempt::Elsewhere(error.clone()));
        }
        let attempt = match (replies.last().ok_or_else(unexpected_reply)?, refused) {
            (Ok(Value::Nil), _) => Attempt::Again,
            (Ok(_), _) => Attempt::Done(applies),
            (Err(end), Some(error)) if end.kind() == ErrorKind::Server(ServerErrorKind::ExecAbort) => {
                let error = without_arguments(error);
                tracing::warn!(keys = key.prefix(), error, "the server refuses an update: the entry is invalidated");
                return Ok(Attempt::Refused);
            }
            (Err(end), _) => return Err(end.clone().into()),
        };
        connection.clean = true;
        Ok(attempt)
    }

    async fn send<R: FromRedisValue>(
        &self,
        exclusive: &mut Exclusive,
        commands: &Pipeline,
    ) -> Result<RedisResult<R>, StepError> {
        let reply = pin!(commands.query_async(&mut exclusive.connection));
        within(self.operation_timeout, Handle::current().id(), reply).await.ok_or(StepError::TimedOut)
    }
}

async fn connection(node: &Node) -> Result<Object<Connector>, StepError> {
    node.updates.get().await.map_err(|error| match error {
        PoolError::Backend(error) => error.into(),
        error => StepError::Failed { advice: "see the cause", cause: error.to_string().into(), answered: false },
    })
}

/// The same commands at a server that a key is on its way to.
fn each_asking(commands: &Pipeline) -> Pipeline {
    let mut asking = redis::pipe();
    for command in commands.cmd_iter() {
        asking.cmd("ASKING").ignore().add_command(command.clone());
    }
    asking
}

/// MULTI .. EXEC. Not the driver's own: of that, it reports no redirection.
fn transaction(key: &Key, decision: Decision, written: Written, asking: bool) -> Pipeline {
    const USUAL_COMMANDS: usize = 4;
    let mut commands = Pipeline::with_capacity(USUAL_COMMANDS);
    if asking {
        // It holds until EXEC.
        commands.cmd("ASKING");
    }
    commands.add_command(command("MULTI", 0, 0));
    match decision {
        Decision::Apply { changes, ttl } => {
            let (set, removed): (Vec<_>, Vec<_>) = changes.into_iter().partition(|(_, value)| value.is_some());
            if !set.is_empty() {
                let bytes = set.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len));
                let bytes = key.as_str().len() + bytes.sum::<usize>();
                commands.add_command(command("HSET", 1 + 2 * set.len(), bytes).arg(key.as_str()).arg(set).take());
            }
            if !removed.is_empty() {
                commands.cmd("HDEL").arg(key.as_str());
                for (name, _none) in removed {
                    commands.arg(name);
                }
            }
            if let Some(ttl) = ttl {
                commands.cmd("PEXPIRE").arg(key.as_str()).arg(millis(ttl));
            }
        }
        Decision::Drop => {
            commands.add_command(command("DEL", 1, key.as_str().len()).arg(key.as_str()).take());
        }
    }
    if written == Written::EntryAndLease {
        commands.add_command(command("DEL", 1, key.lock().len()).arg(key.lock()).take());
    }
    commands.add_command(command("EXEC", 0, 0)).ignore_errors();
    commands
}

/// A connection that only one update uses at a time.
pub(super) struct Exclusive {
    connection: MultiplexedConnection,
    /// Whether its last transaction ended as expected. It isn't while one runs, so that an error or a cancellation
    /// keeps it from being used again: the server may still be working on it, or still watch a key.
    clean: bool,
    /// The generation of the shared connection that it was made in: updates and reads have to meet at one server.
    generation: u64,
}

/// Opens connections, and says which of them may be used again.
pub(super) struct Connector {
    peer: Peer,
    config: AsyncConnectionConfig,
    generation: Generation,
}

/// Where the connections of updates go.
pub(super) enum Peer {
    Server(Box<Client>),
    /// The master that the sentinels name.
    Master(Arc<Master>),
}

impl Connector {
    pub(super) fn new(peer: Peer, connect_timeout: Duration, generation: Generation) -> Self {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(connect_timeout)).set_response_timeout(None);
        Self { peer, config, generation }
    }
}

impl Manager for Connector {
    type Type = Exclusive;
    type Error = RedisError;

    async fn create(&self) -> RedisResult<Exclusive> {
        // Boxed, as it is rare: the pool's future takes its memory three times.
        let connect = async {
            let generation = self.generation.now();
            let connection = match &self.peer {
                Peer::Server(client) => client.get_multiplexed_async_connection_with_config(&self.config).await?,
                Peer::Master(master) => master.connect_beside().await?,
            };
            Ok(Exclusive { connection, clean: true, generation })
        };
        connect.boxed().await
    }

    async fn recycle(&self, exclusive: &mut Exclusive, _metrics: &Metrics) -> RecycleResult<RedisError> {
        if !exclusive.clean {
            return Err(RecycleError::message("its last transaction did not end"));
        }
        if exclusive.generation != self.generation.now() {
            return Err(RecycleError::message("the shared connection may be connected to another server by now"));
        }
        Ok(())
    }
}
