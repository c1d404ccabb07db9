//! The servers of a run, and the faults that are injected during it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use testkit::cluster::Cluster;
use testkit::proxy::{Lost, Proxy};
use testkit::sentinel::Group;
use testkit::server::{Server, free_port, trackers};
use tokio::time::sleep;

use crate::clock;
use crate::near;
use crate::options::{Options, Topology};

/// The pause between two faults.
const MOST_PEACE: Duration = Duration::from_millis(1500);
/// Shorter than the time after which a primary is given up.
const FROZEN: Duration = Duration::from_millis(300);
/// How long a master may be silent.
const PATIENCE_OF_SENTINELS: Duration = Duration::from_secs(2);
/// How long a slot is in migration.
const MOST_OPEN: Duration = Duration::from_millis(500);
/// How long a tracker's connection carries nothing and stays open.
const MOST_SILENCE: Duration = near::BOUND.saturating_mul(3);

/// The servers that were started for a run.
pub(crate) enum Servers {
    /// There is an --url, so no server was started.
    Foreign,
    /// The server is behind a proxy if near caches are to have faults.
    One(Server, Option<Proxy>),
    Cluster(Cluster),
    Sentinels(Group),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// Cuts off all clients of a server.
    CutOff,
    /// Freezes a server for a while.
    Freeze,
    /// Makes a server forget its scripts.
    ForgetScripts,
    /// Moves the slot of a key that is in use to another server.
    MoveSlot,
    /// Kills a primary; a replica takes over, if there is one.
    Kill,
    /// Cuts off the connections of trackers.
    CutTrackersOff,
    /// Silences some of the trackers' connections for a while, without closing them.
    SilenceTrackers,
}

/// A primary was killed, and a replica has taken over that may lack the last writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failover {
    pub(crate) killed: u64,
    pub(crate) promoted: u64,
}

/// The faults so far.
#[derive(Debug, Default, Clone)]
pub(crate) struct Happened {
    pub(crate) failovers: Vec<Failover>,
    pub(crate) faults: BTreeMap<Fault, u64>,
}

/// State that the fault injector and the run share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    happened: Mutex<Happened>,
    /// Held during a fault, or to prevent faults.
    pub(crate) peace: tokio::sync::Mutex<()>,
    /// The current round, for its keys.
    pub(crate) round: AtomicU64,
}

impl Shared {
    pub(crate) fn happened(&self) -> Happened {
        self.happened.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, fault: Fault, failover: Option<Failover>) {
        let mut happened = self.happened.lock().unwrap_or_else(PoisonError::into_inner);
        *happened.faults.entry(fault).or_default() += 1;
        happened.failovers.extend(failover);
    }
}

impl Servers {
    pub(crate) async fn start(options: &Options) -> Result<Self> {
        let flavor = options.server.flavor();
        if options.url.is_some() {
            return Ok(Self::Foreign);
        }
        Ok(match options.topology {
            Topology::Single => {
                let server = Server::try_start(flavor, options.port.unwrap_or_else(free_port), &[]).await?;
                let proxy = if options.near && options.faults { Some(Proxy::to(server.port()).await) } else { None };
                Self::One(server, proxy)
            }
            Topology::Cluster => Self::Cluster(Cluster::start(flavor).await),
            Topology::Sentinel => {
                // Sentinels must not give up a master that only stands still for a while on a busy machine.
                let group = Group::start(flavor).await;
                group.be_patient(PATIENCE_OF_SENTINELS).await;
                Self::Sentinels(group)
            }
        })
    }

    pub(crate) fn url(&self) -> Option<String> {
        match self {
            Self::Foreign => None,
            Self::One(_, Some(proxy)) => Some(proxy.url()),
            Self::One(server, None) => Some(server.url()),
            Self::Cluster(cluster) => Some(cluster.url()),
            Self::Sentinels(group) => Some(group.url()),
        }
    }

    /// Addresses for ending each of them.
    pub(crate) fn each_url(&self) -> Vec<String> {
        match self {
            Self::Foreign => Vec::new(),
            Self::One(server, _) => vec![server.unix_url()],
            Self::Cluster(cluster) => cluster.servers.iter().map(Server::unix_url).collect(),
            Self::Sentinels(group) => {
                let sentinels = group.sentinels.iter().map(|sentinel| format!("redis://127.0.0.1:{}", sentinel.port()));
                group.servers.iter().map(Server::unix_url).chain(sentinels).collect()
            }
        }
    }

    fn each(&self) -> &[Server] {
        match self {
            Self::Foreign => &[],
            Self::One(server, _) => std::slice::from_ref(server),
            Self::Cluster(cluster) => &cluster.servers,
            Self::Sentinels(group) => &group.servers,
        }
    }

    /// The faults for these servers; each occurs once before any of them occurs again.
    pub(crate) fn faults(&self, near: bool) -> Vec<Fault> {
        let mut faults = match self {
            Self::Foreign => return Vec::new(),
            _ => vec![Fault::CutOff, Fault::Freeze, Fault::ForgetScripts, Fault::Kill],
        };
        if let Self::Cluster(_) = self {
            faults.push(Fault::MoveSlot);
        }
        // More often than the others, since each fault hits only some of the trackers.
        if near {
            faults.extend([Fault::CutTrackersOff; 2]);
        }
        if let Self::One(_, Some(_)) = self {
            faults.extend([Fault::SilenceTrackers; 3]);
        }
        faults
    }

    /// Injects faults, one after another, until it is dropped.
    pub(crate) async fn torment(
        mut self,
        seed: u64,
        namespace: String,
        faults: Vec<Fault>,
        shared: Arc<Shared>,
    ) -> Result<()> {
        let (mut rng, mut left) = (StdRng::seed_from_u64(seed), Vec::new());
        loop {
            if left.is_empty() {
                left.clone_from(&faults);
            }
            sleep(MOST_PEACE.mul_f64(rng.random())).await;
            let _no_peace = shared.peace.lock().await;
            let fault = left.swap_remove(rng.random_range(0..left.len()));
            let hot = rng.random_range(0..5);
            let prefix = format!("cache:{namespace}:row:");
            let key = format!("{prefix}{}.{hot}", shared.round.load(Ordering::Relaxed));
            let failover = self.carry_out(fault, &prefix, &key, &mut rng).await?;
            shared.note(fault, failover);
        }
    }

    async fn carry_out(&mut self, fault: Fault, prefix: &str, key: &str, rng: &mut StdRng) -> Result<Option<Failover>> {
        let any = rng.random_range(0..self.each().len());
        match (fault, &mut *self) {
            (Fault::CutOff, _) => {
                let mut client = self.each()[any].client().await;
                redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).exec_async(&mut client).await?;
            }
            (Fault::ForgetScripts, _) => {
                let mut client = self.each()[any].client().await;
                redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut client).await?;
            }
            (Fault::Freeze, _) => {
                let server = &self.each()[any];
                server.freeze();
                sleep(FROZEN).await;
                server.thaw();
            }
            (Fault::MoveSlot, Self::Cluster(cluster)) => {
                let moves = cluster.ways_to_move();
                cluster.moves = moves[rng.random_range(0..moves.len())];
                let way = cluster.open(key).await;
                sleep(MOST_OPEN.mul_f64(rng.random())).await;
                cluster.close(key, way).await;
            }
            (Fault::Kill, Self::Cluster(cluster)) => {
                let killed = clock::now();
                let index = cluster.fail_over(key).await;
                let failover = Failover { killed, promoted: clock::now() };
                sleep(MOST_PEACE).await;
                cluster.bring_back(index).await;
                return Ok(Some(failover));
            }
            (Fault::Kill, Self::Sentinels(group)) => {
                let master = group.master().await;
                let killed = clock::now();
                group.servers[master].kill().await;
                group.promotion_besides(master).await;
                let failover = Failover { killed, promoted: clock::now() };
                sleep(MOST_PEACE).await;
                group.bring_back(master).await;
                return Ok(Some(failover));
            }
            (Fault::CutTrackersOff, _) => {
                for server in self.each() {
                    cut_trackers_off(server, rng).await?;
                }
            }
            (Fault::SilenceTrackers, Self::One(_, Some(proxy))) => {
                // Only the heartbeat and the tracking command name the prefix alone.
                let tracker = format!("{prefix}\r\n");
                for _ in 0..rng.random_range(1..4) {
                    proxy.lose(&tracker, Lost::ReplyForNow).await;
                }
                sleep(MOST_SILENCE.mul_f64(rng.random())).await;
                proxy.release();
            }
            (Fault::Kill, Self::One(server, _)) => {
                server.kill().await;
                sleep(FROZEN).await;
                server.restart().await;
            }
            (Fault::MoveSlot | Fault::Kill | Fault::SilenceTrackers, _) => {}
        }
        Ok(None)
    }
}

/// Each with a probability of one half.
async fn cut_trackers_off(server: &Server, rng: &mut StdRng) -> Result<()> {
    let mut client = server.client().await;
    for id in trackers(&mut client).await? {
        if rng.random_bool(0.5) {
            redis::cmd("CLIENT").arg(&["KILL", "ID", &id]).query_async::<i64>(&mut client).await?;
        }
    }
    Ok(())
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CutOff => "cut off all clients",
            Self::Freeze => "froze a server",
            Self::ForgetScripts => "flushed a server's scripts",
            Self::MoveSlot => "moved a slot in use",
            Self::Kill => "killed a primary",
            Self::CutTrackersOff => "cut off trackers",
            Self::SilenceTrackers => "silenced trackers",
        })
    }
}
