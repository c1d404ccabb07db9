//! A cluster: which server a key is sent to, and where it goes on when that says that the key is elsewhere.
//!
//! The driver has a client for clusters, but WATCH is not safe on its connections, and it keeps for itself which server
//! has which slot: updates would have to find that out a second time, and reads and updates of one key could meet at
//! different servers. So there is one topology for all, over the same connections as to single servers.
//!
//! While a slot moves from one server to another, each of its keys is at one of the two, and a step that needs two keys
//! fails unless both are at the same (TRYAGAIN). `redis.rs` and `update.rs` say what they do then.

mod topology;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rand::seq::SliceRandom;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::watch;

use self::topology::{Place, Topology, own_slots, shards, slot};
use super::connect::{Address, Generation};
use super::errors::without_arguments;
use super::node::{Destination, Limits, Node};
use crate::backend::breaker::Breaker;
use crate::key::Key;

/// How many times a command is sent elsewhere: not for ever, where two servers send it to each other.
const REDIRECTIONS: u32 = 16;
/// The shortest time between two times that the servers are asked about the topology.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Cluster {
    /// The servers that the URL names.
    seeds: Vec<Address>,
    limits: Limits,
    topology: RwLock<Topology>,
    /// How often that has changed, and how often a connection to one of its servers was lost.
    changes: Arc<AtomicU64>,
    /// Whether the servers are being asked which of them has which slot.
    refreshing: AtomicBool,
    /// How the last time went.
    refreshed: watch::Sender<RedisResult<()>>,
}

impl Cluster {
    pub(super) fn new(seeds: Vec<Address>, limits: Limits) -> Result<Self, String> {
        let changes = Arc::<AtomicU64>::default();
        for seed in &seeds {
            Node::new(seed.clone(), Generation::of_server(changes.clone()), limits)?;
        }
        Ok(Self {
            seeds,
            limits,
            topology: RwLock::new(Topology::unknown()),
            changes,
            refreshing: AtomicBool::new(false),
            refreshed: watch::Sender::new(Ok(())),
        })
    }

    /// Asks the servers which of them has which slot, and waits for what they say.
    pub(super) async fn learn_topology(self: &Arc<Self>) -> RedisResult<()> {
        let mut refreshed = self.refreshed.subscribe();
        loop {
            self.refresh();
            tokio::select! {
                _cannot_fail = refreshed.changed() => return refreshed.borrow().clone(),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    pub(super) async fn know_topology(self: &Arc<Self>) -> RedisResult<()> {
        if self.topology().is_known() { Ok(()) } else { self.learn_topology().await }
    }

    /// The server that has the key.
    pub(super) async fn destination(self: &Arc<Self>, key: &Key) -> RedisResult<Destination> {
        let slot = slot(key.as_str());
        self.know_topology().await?;
        let node = self.topology().owner(slot).cloned();
        let node = node.ok_or_else(|| {
            self.refresh();
            RedisError::from((ErrorKind::Server(ServerErrorKind::ClusterDown), "no server has the key's hash slot"))
        })?;
        Ok(Destination { node, asking: false })
    }

    /// The server that has the key, if that is known.
    pub(super) fn owner(&self, key: &Key) -> Option<Arc<Node>> {
        self.topology().owner(slot(key.as_str())).cloned()
    }

    /// The breaker of the server that has the key, if that is known.
    pub(super) fn breaker(&self, key: &Key) -> Option<Arc<Breaker>> {
        self.owner(key).map(|node| node.breaker.clone())
    }

    /// Says that a step of this key got no answer within its limit.
    pub(super) fn timed_out(self: &Arc<Self>, key: &Key, limit: Duration) {
        if let Some(node) = self.owner(key) {
            node.timed_out(limit);
        }
        self.refresh();
    }

    pub(super) fn primaries(&self) -> Vec<Arc<Node>> {
        self.topology().primaries()
    }

    /// The servers that keys may be at.
    pub(super) fn with_keys(&self) -> Vec<Arc<Node>> {
        self.topology().with_keys()
    }

    /// Counts the changes of the topology, and those of the connections to its servers.
    pub(super) fn changes(&self) -> Arc<AtomicU64> {
        self.changes.clone()
    }

    /// Whether all servers say of themselves that they have the slots that the topology gives them, and that none is on
    /// the move.
    pub(super) async fn is_settled(&self) -> RedisResult<bool> {
        let primaries = self.primaries();
        let mut answers: FuturesUnordered<_> = primaries.iter().map(|node| self.has_its_slots(node)).collect();
        while let Some(has_them) = answers.next().await {
            if !has_them? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn has_its_slots(&self, node: &Arc<Node>) -> RedisResult<bool> {
        let nodes = node.run(redis::cmd("CLUSTER").arg("NODES").take()).await?;
        let nodes: String = redis::from_redis_value(nodes)?;
        Ok(own_slots(&nodes).is_some_and(|slots| slots == self.topology().slots_of(node)))
    }

    /// Runs a command, at other servers if it is sent there.
    pub(super) async fn run(self: &Arc<Self>, key: &Key, command: &(impl Fn() -> Cmd + Sync)) -> RedisResult<Value> {
        let mut destination = self.destination(key).await?;
        for _ in 0..REDIRECTIONS {
            let error = match destination.run(command()).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            destination = self.redirected(key, &destination, &error).ok_or(error)?;
        }
        destination.run(command()).await
    }

    /// Runs the commands in one round trip, each with a result of its own. If one is sent elsewhere, it and those after it
    /// are run one by one, so that they keep their order; they must be such that may be run twice.
    pub(super) async fn run_all<const N: usize>(
        self: &Arc<Self>,
        key: &Key,
        commands: &(impl Fn() -> [Cmd; N] + Sync),
    ) -> RedisResult<[RedisResult<Value>; N]> {
        let destination = self.destination(key).await?;
        let replies = destination.node.run_all(commands()).await;
        let mut replies = replies.inspect_err(|error| self.failed(error))?;
        let is_sent_elsewhere = |reply: &RedisResult<Value>| {
            reply.as_ref().is_err_and(|error| self.redirected(key, &destination, error).is_some())
        };
        if let Some(first) = replies.iter().position(is_sent_elsewhere) {
            for (command, reply) in commands().iter().zip(&mut replies).skip(first) {
                *reply = self.run(key, &|| command.clone()).await;
            }
        }
        Ok(replies)
    }

    /// Where a command goes on after this error, if it does. What the error says of the topology is noted.
    pub(super) fn redirected(
        self: &Arc<Self>,
        key: &Key,
        from: &Destination,
        error: &RedisError,
    ) -> Option<Destination> {
        self.failed(error);
        let (place, _slot) = error.redirect_node()?;
        let node = self.node(&Place::parse(place, from.node.place().0)?)?;
        let asking = error.kind() == ErrorKind::Server(ServerErrorKind::Ask);
        self.change(|topology| {
            if asking { topology.imports(node.clone()) } else { topology.moved(slot(key.as_str()), node.clone()) }
        });
        Some(Destination { node, asking })
    }

    /// Looks whether an error means that the topology has changed.
    fn failed(self: &Arc<Self>, error: &RedisError) {
        let outdated = error.is_io_error()
            || matches!(error.code(), Some("MOVED" | "CLUSTERDOWN" | "READONLY" | "LOADING" | "MASTERDOWN"));
        if outdated {
            self.refresh();
        }
    }

    /// Asks the servers, in a task of its own, unless one does already.
    pub(super) fn refresh(self: &Arc<Self>) {
        if !self.refreshing.swap(true, Ordering::AcqRel) {
            let turn = Turn { cluster: Arc::downgrade(self) };
            tokio::spawn(turn.refresh());
        }
    }

    async fn ask_servers(&self) -> RedisResult<Topology> {
        const AT_A_TIME: u32 = 3;
        /// Until the next ones are asked too.
        const PATIENCE: Duration = Duration::from_millis(100);
        let mut known = self.topology().nodes().to_vec();
        known.shuffle(&mut rand::rng());
        // Nobody else connects to replicas.
        let primaries = self.primaries();
        known.sort_by_key(|node| !primaries.iter().any(|primary| Arc::ptr_eq(primary, node)));
        let mut seeds = self.seeds.iter().collect::<Vec<_>>();
        seeds.retain(|seed| !known.iter().any(|node| node.place() == seed.place()));
        seeds.shuffle(&mut rand::rng());
        let asked = known.into_iter().map(Asked::Known).chain(seeds.into_iter().map(Asked::Seed));
        let mut answers: FuturesUnordered<_> = asked
            .zip(0..)
            .map(async |(asked, position): (Asked<'_>, u32)| {
                tokio::time::sleep(PATIENCE * (position / AT_A_TIME)).await;
                let node = match asked {
                    Asked::Known(node) => node,
                    Asked::Seed(seed) => self.new_node(seed.clone())?,
                };
                self.ask(&node).await
            })
            .collect();
        let mut failure = None;
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(topology) => return Ok(topology),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| (ErrorKind::InvalidClientConfig, "there is no server to ask").into()))
    }

    async fn ask(&self, asked: &Arc<Node>) -> RedisResult<Topology> {
        let slots = redis::cmd("CLUSTER").arg("SLOTS").take();
        let reply = tokio::time::timeout(self.limits.connect_timeout, asked.run(slots)).await;
        let reply = reply.map_err(|_elapsed| (ErrorKind::Io, "a server of the cluster did not answer in time"))??;
        let shards = shards(reply, asked.place().0)?;
        let topology = Topology::new(&shards, |place| {
            if asked.place() == (&*place.host, place.port) { Some(asked.clone()) } else { self.node(place) }
        });
        if topology.is_known() {
            return Ok(topology);
        }
        Err((ErrorKind::Server(ServerErrorKind::ClusterDown), "no server of the cluster has a hash slot").into())
    }

    /// The server at this place: one that is known, or one more.
    fn node(&self, place: &Place) -> Option<Arc<Node>> {
        self.topology().node(place).or_else(|| {
            let address = self.seeds.first()?.at(&place.host, place.port);
            self.new_node(address).ok()
        })
    }

    fn new_node(&self, address: Address) -> RedisResult<Arc<Node>> {
        let node = Node::new(address, Generation::of_server(self.changes.clone()), self.limits);
        node.map(Arc::new).map_err(|mistake| (ErrorKind::InvalidClientConfig, "no such address", mistake).into())
    }

    fn topology(&self) -> std::sync::RwLockReadGuard<'_, Topology> {
        self.topology.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change, which tells whether it was one.
    fn change(&self, change: impl FnOnce(&mut Topology) -> bool) {
        let mut topology = self.topology.write().unwrap_or_else(PoisonError::into_inner);
        if change(&mut topology) {
            self.changes.fetch_add(1, Ordering::Release);
        }
    }
}

impl Destination {
    async fn run(&self, command: Cmd) -> RedisResult<Value> {
        if !self.asking {
            return self.node.run(command).await;
        }
        let [asked, reply] = self.node.run_all([redis::cmd("ASKING"), command]).await?;
        asked.and(reply)
    }
}

/// A server to ask about the topology.
enum Asked<'a> {
    Known(Arc<Node>),
    /// One that the URL names.
    Seed(&'a Address),
}

/// The right to be the only task that asks, given back however it ends.
struct Turn {
    cluster: Weak<Cluster>,
}

impl Turn {
    async fn refresh(self) {
        let Some(cluster) = self.cluster.upgrade() else { return };
        let answered = cluster.ask_servers().await;
        let answered = answered.map(|topology| cluster.change(|current| current.replace(topology)));
        if let Err(error) = &answered {
            let error = without_arguments(error);
            tracing::debug!(error, "no server of the cluster tells which has which hash slot");
        }
        let _how_before = cluster.refreshed.send_replace(answered);
        drop(cluster);
        tokio::time::sleep(PAUSE).await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(cluster) = self.cluster.upgrade() {
            cluster.refreshing.store(false, Ordering::Release);
        }
    }
}
