//! One server: the connection of reads, the one that all other steps but updates share, and those of updates.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::Pool;
use redis::{Cmd, RedisResult, Value};
use resp_rs::resp2::Frame;

use super::connect::{Address, Generation, Reconnecting, Shared, without_detail};
use super::pipelines::Pipelines;
use super::reads::Reads;
use super::sentinel::{Master, Sentinels};
use super::update::{Connector, Peer};
use crate::backend::breaker::Breaker;

pub(super) struct Node {
    #[cfg_attr(not(feature = "cluster"), expect(dead_code, reason = "it tells the servers of a cluster apart"))]
    /// Its host and port; nothing for a Unix socket, and for a master, which may be anywhere.
    place: (String, u16),
    pub(super) shared: Arc<Shared>,
    pipelines: Pipelines,
    reads: Reads,
    pub(super) updates: Pool<Connector>,
    pub(super) connect_timeout: Duration,
    #[cfg_attr(not(feature = "cluster"), expect(dead_code, reason = "one server has that of the backend"))]
    /// Used where there are several servers.
    pub(super) breaker: Arc<Breaker>,
}

/// What the connections to each server have in common.
#[derive(Debug, Clone, Copy)]
pub(in crate::backend) struct Limits {
    pub(in crate::backend) operation_timeout: Duration,
    pub(in crate::backend) connect_timeout: Duration,
    pub(in crate::backend) update_connections: NonZeroUsize,
    pub(in crate::backend) read_connection: bool,
    pub(in crate::backend) breaker_threshold: u32,
    pub(in crate::backend) breaker_pause: Duration,
}

impl Node {
    /// Prepares the connections; none is made yet.
    pub(super) fn new(address: Address, generation: Generation, limits: Limits) -> Result<Self, String> {
        let (host, port) = address.place();
        let (place, shown) = ((host.to_owned(), port), address.to_string());
        let shared = Reconnecting::new(address, generation, limits);
        let shared = shared.map_err(|error| without_detail(&error))?;
        let peer = Peer::Server(Box::new(shared.client().clone()));
        let connector = Connector::new(peer, limits.connect_timeout, shared.generation());
        Self::with(place, shown, Shared::Server(Box::new(shared)), connector, limits)
    }

    /// Begins to look for the master that the sentinels name; must be called within a tokio runtime.
    pub(super) fn following(sentinels: Sentinels, limits: Limits) -> Result<Self, String> {
        let shown = sentinels.to_string();
        let master = Master::follow(sentinels, limits);
        let connector = Connector::new(Peer::Master(master.clone()), limits.connect_timeout, master.generation());
        Self::with((String::new(), 0), shown, Shared::Master(master), connector, limits)
    }

    fn with(
        place: (String, u16),
        shown: String,
        shared: Shared,
        connector: Connector,
        limits: Limits,
    ) -> Result<Self, String> {
        let updates = Pool::builder(connector).max_size(limits.update_connections.get()).build();
        let updates = updates.map_err(|error| error.to_string())?;
        let breaker = Breaker::new(shown, limits.breaker_threshold, limits.breaker_pause);
        let shared = Arc::new(shared);
        let (pipelines, reads) = (Pipelines::new(shared.clone()), Reads::new(shared.clone(), limits));
        let connect_timeout = limits.connect_timeout;
        Ok(Self { place, shared, pipelines, reads, updates, connect_timeout, breaker: Arc::new(breaker) })
    }

    #[cfg(feature = "cluster")]
    pub(super) fn place(&self) -> (&str, u16) {
        (&self.place.0, self.place.1)
    }

    pub(super) fn run(&self, command: Cmd) -> impl Future<Output = RedisResult<Value>> + use<> {
        self.pipelines.run(command)
    }

    /// Runs the commands in one round trip, one right after the other, each with a result of its own.
    pub(super) fn run_all<const N: usize>(
        &self,
        commands: [Cmd; N],
    ) -> impl Future<Output = RedisResult<[RedisResult<Value>; N]>> + use<N> {
        self.pipelines.run_all(commands)
    }

    /// Runs commands over the connection of reads; `None` where the shared one is to be used.
    pub(super) async fn read<const N: usize>(
        &self,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Option<RedisResult<[RedisResult<Frame>; N]>> {
        if self.reads.are_unfit() {
            return None;
        }
        let replies = self.reads.run(encode).await;
        // It is known by now why it failed.
        if self.reads.are_unfit() { None } else { Some(replies) }
    }

    /// Counts a step that got no answer within `limit`.
    pub(super) fn timed_out(&self, limit: Duration) {
        self.shared.timed_out(limit);
        self.pipelines.timed_out();
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
