//! The server that a key is sent to: the only one there is, or one of a cluster, which may redirect the command.
//!
//! The driver's client for clusters is not used: WATCH is not safe on its connections, and it doesn't show which server has
//! which slot, so updates and reads of the same key could go to two servers.
//!
//! While a slot is migrating, each of its keys is at one of two servers, and a step on two keys fails unless both are at the
//! same one (TRYAGAIN). `redis.rs` and `update.rs` handle that.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{select_ok, try_join_all};
use parking_lot::{RwLock, RwLockReadGuard};
use rand::seq::SliceRandom;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};
use tokio::sync::watch;

use super::TakenOver;
use super::address::{Address, Servers};
use super::connect::Target;
use super::errors::{not_answered, without_arguments};
use super::exclusive::Exclusives;
use super::resp::{Reply, encode};
use super::shared::{Request, Shared};
use super::slots::{Moved, SlotMap, known_host, own_epoch_and_slots, shards, slot};
use crate::backend::builder::Settings;
use crate::backend::call::Breaker;
use crate::backend::deadline::within;
use crate::backend::takeover::Backends;
use crate::background::Background;
use crate::record::Key;

/// Limit of redirections, against loops.
const REDIRECTIONS: u32 = 16;
/// The shortest pause between two `CLUSTER SLOTS`.
const PAUSE: Duration = Duration::from_millis(50);

pub(in crate::backend) struct Topology {
    /// The server that has all keys, unless this is a cluster.
    pub(super) only: Option<Arc<Server>>,
    /// The servers of a cluster that the URL names.
    seeds: Vec<Address>,
    settings: Settings,
    pub(super) slots: RwLock<SlotMap>,
    /// Counts the changes after which entries may be at another server: those of `slots`, and the epochs that have ended.
    pub(super) changes: Arc<AtomicU64>,
    pub(in crate::backend) backends: Arc<Backends>,
    /// The task that asks the servers for the slots.
    refreshing: Background,
    /// The result of its last run.
    refreshed: watch::Sender<RedisResult<()>>,
}

/// One server: the shared connection, the exclusive ones, and, in a cluster, the breaker that both feed.
pub(super) struct Server {
    /// Empty for a Unix socket, and for a master, which may be anywhere.
    pub(super) place: Place,
    pub(super) shared: Arc<Shared>,
    pub(super) exclusives: Exclusives,
    pub(super) breaker: Arc<Breaker>,
}

impl Server {
    /// Prepares the connections to a server; none is made yet. `backend` is the label of its gauges, and `changes` counts the
    /// epochs that end.
    fn new(
        target: Target,
        backend: &str,
        settings: Settings,
        changes: Arc<AtomicU64>,
        backends: Arc<Backends>,
    ) -> Self {
        let (place, shown) = match &target {
            Target::Server(address) => (address.place.clone(), address.to_string()),
            Target::Master(sentinels) => (Place::default(), sentinels.to_string()),
        };
        let shared = Shared::new(target, settings, changes, backends);
        let exclusives = Exclusives::new(shared.clone(), settings.update_connections);
        let breaker = Arc::new(Breaker::new(shown, backend, settings.breaker_threshold, settings.breaker_pause));
        Self { place, shared, exclusives, breaker }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// When each server was last known to answer, as long as no slot moves.
pub(in crate::backend) struct LastSeen<'a> {
    slots: RwLockReadGuard<'a, SlotMap>,
    seen: HashMap<*const Server, Option<Instant>>,
}

impl LastSeen<'_> {
    /// `None` if it isn't known.
    pub(in crate::backend) fn of(&self, key: &Key) -> Option<Instant> {
        *self.seen.get(&Arc::as_ptr(self.slots.owner(slot(key.as_str()))?))?
    }

    pub(in crate::backend) fn latest(&self) -> Option<Instant> {
        self.seen.values().flatten().max().copied()
    }
}

/// A server to send a command to.
#[derive(Clone)]
pub(super) struct Destination {
    pub(super) server: Arc<Server>,
    /// Whether an ASK led there, while the key's slot is migrating: without ASKING, the server would send the command back.
    pub(super) asking: bool,
}

/// Where a server is.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Place {
    /// Parses the `host:port` of a redirection. Without a host, it is the host of the server that sent it.
    pub(super) fn parse(text: &str, said_by: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = known_host(Some(host), said_by)?;
        Some(Self { host, port: port.parse().ok()? })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl Topology {
    pub(super) fn new(servers: Servers, settings: Settings) -> Self {
        let (shown, changes, backends) = (servers.to_string(), Arc::<AtomicU64>::default(), Arc::<Backends>::default());
        let (only, seeds) = match servers {
            Servers::One(target) => {
                let server = Server::new(target, &shown, settings, changes.clone(), backends.clone());
                (Some(Arc::new(server)), Vec::new())
            }
            Servers::Cluster(seeds) => (None, seeds),
        };
        let slots = only.clone().map_or_else(SlotMap::unknown, SlotMap::of_one);
        Self {
            only,
            seeds,
            settings,
            slots: RwLock::new(slots),
            changes,
            backends,
            refreshing: Background::default(),
            refreshed: watch::Sender::new(Ok(())),
        }
    }

    /// Follows a redirection: runs that command at the other server, and then those after it again (for a write, all of them),
    /// one by one, so that they keep their order.
    pub(super) async fn follow<const N: usize>(
        self: &Arc<Self>,
        key: &Key,
        request: &Request<'_>,
        mut replies: [RedisResult<Reply>; N],
    ) -> RedisResult<[RedisResult<Reply>; N]> {
        let sent_elsewhere = replies.iter().position(is_sent_elsewhere).unwrap_or(N);
        let first = if request.is_write { 0 } else { sent_elsewhere };
        for (at, reply) in replies.iter_mut().enumerate().skip(first) {
            let command = |_: usize, out: &mut Vec<u8>| (request.encode)(at, out);
            let request = Request { encode: &command, ..*request };
            let mut destination = self.destination(key).await?;
            for _ in 0..=REDIRECTIONS {
                *reply = destination.run(&request).await;
                let next = reply.as_ref().err().and_then(|error| self.redirected(key, &destination, error));
                let Some(next) = next else { break };
                destination = next;
            }
        }
        Ok(replies)
    }

    /// Asks the servers for the slots, and waits for the result.
    pub(super) async fn fetch_slots(self: &Arc<Self>) -> RedisResult<()> {
        let mut refreshed = self.refreshed.subscribe();
        loop {
            self.refresh();
            tokio::select! {
                // It can't fail, since the sender is in `self`.
                _ = refreshed.changed() => return refreshed.borrow().clone(),
                // The task may have had its result already, and be in its pause: then the next one has to be started.
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// The slots, as soon as they are known.
    pub(super) async fn known_slots(self: &Arc<Self>) -> RedisResult<RwLockReadGuard<'_, SlotMap>> {
        if !self.slots.read().is_known() {
            let fetched = within(self.settings.operation_timeout, self.fetch_slots()).await;
            fetched.unwrap_or_else(|| Err(not_answered()))?;
        }
        Ok(self.slots.read())
    }

    /// The server that has the key.
    pub(super) async fn destination(self: &Arc<Self>, key: &Key) -> RedisResult<Destination> {
        let owner = self.known_slots().await?.owner(slot(key.as_str())).cloned();
        let server = owner.ok_or_else(|| {
            self.refresh();
            RedisError::from((ErrorKind::Server(ServerErrorKind::ClusterDown), "no server has the key's hash slot"))
        })?;
        Ok(Destination { server, asking: false })
    }

    /// The server that has the key, if that is known.
    pub(super) fn owner(&self, key: &Key) -> Option<Arc<Server>> {
        self.slots.read().owner(slot(key.as_str())).cloned()
    }

    /// The breaker of the server that has the key, if that is known.
    pub(super) fn breaker(&self, key: &Key) -> Option<Arc<Breaker>> {
        self.owner(key).map(|server| server.breaker.clone())
    }

    /// The sum of the servers' config epochs. `None` if an entry may have moved since there were so many changes: else each
    /// server says that it has the slots that it has in the topology, and that none of them is migrating. A server that loses a
    /// slot and gets it back has a higher epoch than before.
    pub(super) async fn settled_since(self: &Arc<Self>, changes: u64) -> RedisResult<Option<u64>> {
        let mut epochs = Some(0);
        if self.only.is_none() {
            self.fetch_slots().await?;
            let primaries = self.slots.read().primaries();
            let each = try_join_all(primaries.iter().map(|server| self.epoch_if_settled(server))).await?;
            epochs = each.into_iter().sum();
        }
        Ok(epochs.filter(|_| self.changes.load(Ordering::Acquire) == changes))
    }

    async fn epoch_if_settled(&self, server: &Arc<Server>) -> RedisResult<Option<u64>> {
        let nodes = server.shared.ask(self.settings.operation_timeout, &[b"CLUSTER", b"NODES"]).await?;
        let own = own_epoch_and_slots(&nodes.text()?);
        Ok(own.filter(|(_, slots)| *slots == self.slots.read().slots_of(server)).map(|(epoch, _)| epoch))
    }

    /// The destination that an error redirects the command to, if it does. The topology learns from the error.
    pub(super) fn redirected(
        self: &Arc<Self>,
        key: &Key,
        from: &Destination,
        error: &RedisError,
    ) -> Option<Destination> {
        self.refresh_after(error);
        let (place, _slot) = error.redirect_node()?;
        let server = self.server(&Place::parse(place, &from.server.place.host)?)?;
        let asking = error.kind() == ErrorKind::Server(ServerErrorKind::Ask);
        if !asking {
            self.change(|slots| slots.moved(slot(key.as_str()), server.clone()));
        } else if self.slots.write().imports(server.clone()) {
            self.changes.fetch_add(1, Ordering::Release);
        }
        Some(Destination { server, asking })
    }

    /// Asks for the slots again if an error may mean that the topology has changed.
    pub(super) fn refresh_after(self: &Arc<Self>, error: &RedisError) {
        let outdated = error.is_io_error()
            || matches!(error.code(), Some("MOVED" | "CLUSTERDOWN" | "READONLY" | "LOADING" | "MASTERDOWN"));
        if outdated {
            self.refresh();
        }
    }

    /// Asks the servers of a cluster for the slots, in a background task.
    pub(super) fn refresh(self: &Arc<Self>) {
        if self.only.is_none() {
            self.refreshing.ensure(|| refresh(Arc::downgrade(self)));
        }
    }

    async fn ask_servers(&self) -> RedisResult<SlotMap> {
        const AT_A_TIME: u32 = 3;
        /// After so much silence, the next ones are asked too.
        const STAGGER: Duration = Duration::from_millis(100);
        let mut known = self.slots.read().nodes.clone();
        known.shuffle(&mut rand::rng());
        // Primaries first: nothing else needs a connection to a replica.
        let primaries = self.slots.read().primaries();
        known.sort_by_key(|server| !primaries.iter().any(|primary| Arc::ptr_eq(primary, server)));
        let is_unknown = |seed: &&Address| !known.iter().any(|server| server.place == seed.place);
        let mut seeds: Vec<_> = self.seeds.iter().filter(is_unknown).collect();
        seeds.shuffle(&mut rand::rng());
        let seeds = seeds.into_iter().map(|seed| self.new_server(seed.clone()));
        let asked = known.iter().cloned().chain(seeds).zip(0..).map(|(server, position)| {
            async move {
                tokio::time::sleep(STAGGER * (position / AT_A_TIME)).await;
                self.ask(&server).await
            }
            .boxed()
        });
        // A URL names at least one server, so this is not empty.
        select_ok(asked).await.map(|(slots, _others)| slots)
    }

    async fn ask(&self, asked: &Arc<Server>) -> RedisResult<SlotMap> {
        let reply = asked.shared.ask(self.settings.connect_timeout, &[b"CLUSTER", b"SLOTS"]).await?;
        let shards = shards(reply, &asked.place.host)?;
        let slots =
            SlotMap::new(&shards, |place| if asked.place == *place { Some(asked.clone()) } else { self.server(place) });
        if slots.is_known() {
            return Ok(slots);
        }
        Err((ErrorKind::Server(ServerErrorKind::ClusterDown), "no server of the cluster has a hash slot").into())
    }

    /// The server at this place: a known one, or a new one.
    fn server(&self, place: &Place) -> Option<Arc<Server>> {
        self.slots.read().node(place).or_else(|| Some(self.new_server(self.seeds.first()?.at(place.clone()))))
    }

    fn new_server(&self, address: Address) -> Arc<Server> {
        let target = Target::Server(Arc::new(address));
        let backend = Address::show(&self.seeds, "cluster");
        Arc::new(Server::new(target, &backend, self.settings, self.changes.clone(), self.backends.clone()))
    }

    /// Changes the map. Nobody sees it before the backends know of the takeovers.
    fn change(&self, change: impl FnOnce(&mut SlotMap) -> Moved) {
        let mut slots = self.slots.write();
        let moved = change(&mut slots);
        if moved.have_any {
            self.changes.fetch_add(1, Ordering::Release);
        }
        if !moved.taken_over.is_empty() {
            self.backends.taken_over(moved.last_seen, TakenOver::Slots(&moved.taken_over));
        }
    }

    /// Asks for the slots, and connects again to the servers that have keys, and that there was a connection to before. Fails if
    /// that is not done at once: then it goes on by itself.
    pub(in crate::backend) async fn settle(self: &Arc<Self>) -> RedisResult<()> {
        const AT_ONCE: Duration = Duration::from_millis(100);
        if self.only.is_none() {
            within(self.settings.operation_timeout, self.fetch_slots()).await.unwrap_or_else(|| Err(not_answered()))?;
        }
        let servers = self.slots.read().primaries();
        let known = servers.iter().filter(|server| server.shared.last_seen().is_some());
        let connected = try_join_all(known.map(|server| server.shared.epoch()));
        tokio::time::timeout(AT_ONCE, connected).await.unwrap_or_else(|_elapsed| Err(not_answered()))?;
        Ok(())
    }

    /// Whether the key is at the server that this connection leads to.
    pub(in crate::backend) fn has_key(&self, server: &Arc<Shared>, key: &Key) -> bool {
        self.only.is_some() || self.owner(key).is_some_and(|owner| Arc::ptr_eq(&owner.shared, server))
    }

    /// Whether the server that this connection leads to has keys.
    pub(super) fn has_keys(&self, server: &Arc<Shared>) -> bool {
        self.only.is_some() || self.slots.read().primaries().iter().any(|primary| Arc::ptr_eq(&primary.shared, server))
    }

    /// When the servers were last known to answer.
    pub(in crate::backend) fn last_seen(&self) -> LastSeen<'_> {
        let slots = self.slots.read();
        let seen = slots.nodes.iter().map(|server| (Arc::as_ptr(server), server.shared.last_seen())).collect();
        LastSeen { slots, seen }
    }

    /// Whether a server that has keys hasn't answered for longer than a heartbeat takes.
    pub(in crate::backend) fn is_silent(&self) -> bool {
        const SILENCE: Duration = Duration::from_millis(1500);
        let servers = self.slots.read().primaries();
        let mut seen = servers.iter().filter_map(|server| server.shared.last_seen());
        self.only.is_none() && seen.any(|seen| seen.elapsed() > SILENCE)
    }

    /// Whether a key was at the server whose place was taken. A closure that takes no lock.
    pub(in crate::backend) fn is_affected_by<'a>(&self, what: TakenOver<'a>) -> Box<dyn Fn(&Key) -> bool + 'a> {
        match what {
            TakenOver::Slots(slots) => Box::new(|key| slots.contains(&slot(key.as_str()))),
            TakenOver::Server(_) if self.only.is_some() => Box::new(|_key| true),
            TakenOver::Server(shared) => {
                let map = self.slots.read();
                let server = map.nodes.iter().find(|server| Arc::ptr_eq(&server.shared, shared));
                let slots: HashSet<_> = server.map(|server| map.slots_of(server)).into_iter().flatten().collect();
                Box::new(move |key| slots.contains(&slot(key.as_str())))
            }
        }
    }
}

pub(super) fn is_sent_elsewhere(reply: &RedisResult<Reply>) -> bool {
    reply.as_ref().is_err_and(|error| error.redirect_node().is_some())
}

impl Destination {
    async fn run(&self, request: &Request<'_>) -> RedisResult<Reply> {
        if !self.asking {
            let [reply] = self.server.shared.run(request).await?;
            return reply;
        }
        let commands = |at: usize, out: &mut Vec<u8>| match at {
            0 => encode(out, &[b"ASKING"]),
            _ => (request.encode)(0, out),
        };
        let [asked, reply] = self.server.shared.run(&Request { encode: &commands, ..*request }).await?;
        asked.and(reply)
    }
}

/// Asks the servers for the slots once. The pause at the end keeps the next run from following at once.
async fn refresh(topology: Weak<Topology>) {
    let Some(topology) = topology.upgrade() else { return };
    let answered = topology.ask_servers().await;
    let answered = answered.map(|slots| topology.change(|current| current.replace(slots)));
    if let Err(error) = &answered {
        let error = without_arguments(error);
        tracing::debug!(error, "no server of the cluster tells which has which hash slot");
    }
    drop(topology.refreshed.send_replace(answered));
    drop(topology);
    tokio::time::sleep(PAUSE).await;
}
