//! One server: the connection that all steps but updates share, and those of updates.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::Pool;
use redis::{Client, Cmd, Pipeline, RedisResult, Value};

use super::connect::{Address, Shared, without_detail};
use super::replies;
use super::update::Connector;
use crate::backend::breaker::Breaker;

pub(super) struct Node {
    address: Address,
    pub(super) shared: Shared,
    pub(super) updates: Pool<Connector>,
    /// Used where there are several servers.
    pub(super) breaker: Arc<Breaker>,
}

/// What the connections to each server have in common.
#[derive(Debug, Clone, Copy)]
pub(in crate::backend) struct Limits {
    pub(in crate::backend) operation_timeout: Duration,
    pub(in crate::backend) connect_timeout: Duration,
    pub(in crate::backend) update_connections: NonZeroUsize,
    pub(in crate::backend) breaker_threshold: u32,
    pub(in crate::backend) breaker_pause: Duration,
}

impl Node {
    /// Prepares the connections; none is made yet.
    pub(super) fn new(address: Address, limits: Limits) -> Result<Self, String> {
        let client = Client::open(address.0.clone()).map_err(|error| without_detail(&error))?;
        let shared = Shared::new(client.clone(), limits.connect_timeout).map_err(|error| without_detail(&error))?;
        let connector = Connector::new(client, limits.connect_timeout, shared.generations());
        let updates = Pool::builder(connector).max_size(limits.update_connections.get()).build();
        let breaker = Breaker::new(address.to_string(), limits.breaker_threshold, limits.breaker_pause);
        let updates = updates.map_err(|error| error.to_string())?;
        Ok(Self { address, shared, updates, breaker: Arc::new(breaker) })
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) async fn run(&self, command: &Cmd) -> RedisResult<Value> {
        let mut connection = self.shared.connection();
        let reply = command.query_async(&mut connection.manager).await;
        self.shared.check(&connection, reply.as_ref().err());
        reply
    }

    /// Runs the commands in one round trip, each with a result of its own.
    pub(super) async fn run_all(&self, mut commands: Pipeline) -> RedisResult<Vec<RedisResult<Value>>> {
        let mut connection = self.shared.connection();
        let replies = commands.ignore_errors().query_async(&mut connection.manager).await;
        let replies: Vec<RedisResult<Value>> =
            replies.inspect_err(|error| self.shared.check(&connection, Some(error)))?;
        self.shared.check(&connection, replies.iter().find_map(|reply| reply.as_ref().err()));
        Ok(replies)
    }
}

/// A server to send a command to.
#[derive(Clone)]
pub(super) struct Destination {
    pub(super) node: Arc<Node>,
    /// Whether another server sent the command there, with a key whose slot is on its way: without ASKING it would be sent
    /// back.
    pub(super) asking: bool,
}

impl Destination {
    pub(super) async fn run(&self, command: &Cmd) -> RedisResult<Value> {
        if !self.asking {
            return self.node.run(command).await;
        }
        let mut commands = redis::pipe();
        commands.cmd("ASKING").add_command(command.clone());
        let [asked, reply] = replies(self.node.run_all(commands).await?)?;
        asked.and(reply)
    }
}
