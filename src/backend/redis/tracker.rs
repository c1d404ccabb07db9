//! The trackers: connections over which the servers tell near caches of changes, one to each server that keys may be at.
//!
//! They are plain connections, since one that connects again by itself would go on without being told. Each belongs to an epoch
//! of its server's shared connection, and ends with it. A tracker's server is asked again and
//! again whether it is there and still a primary: a link that is cut without a trace tells nothing, and a server that has
//! lost its place may not learn of changes itself.
//!
//! All of them make up one session, which ends with the first that is lost, and with each change of the servers.

use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::try_join_all;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, Pipeline, ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo};
use redis::{RedisError, RedisResult, Value};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Redis;
use super::errors::{is_not_ready, is_replica, knows_no_hello, unexpected_reply, without_arguments};
use super::server::Server;
use super::shared::Epoch;
use super::topology::Topology;
use crate::backend::Settings;
use crate::backend::deadline::within;
use crate::load::AbortOnDrop;
use crate::near::{Moment, Tracking, Wanted};
use crate::pause::jittered;
use crate::proof::Guard;

/// Between one attempt to connect and the next; from half of it on, at random.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Until a server is asked again that has refused to tell of changes; from half of it on, too.
const PAUSE_OF_REFUSED: Duration = Duration::from_secs(30);

/// Has the servers tell of changes until the backend is gone, or the last near cache over it.
pub(in crate::backend) async fn track(redis: Weak<Redis>, tracking: Arc<Tracking>, settings: Settings) {
    let mut pause = SHORTEST_PAUSE;
    while let Some(present) = redis.upgrade() {
        let wanted = tracking.wanted();
        if wanted.prefixes.is_empty() {
            return;
        }
        let connected = connect(&present.topology, &wanted, &tracking).await;
        drop(present);
        pause = match connected {
            Ok(trackers) => {
                let began = Instant::now();
                trackers.keep(&redis, &tracking, &wanted, settings).await;
                // One that ends at once may do so again and again.
                if began.elapsed() >= LONGEST_PAUSE { SHORTEST_PAUSE } else { LONGEST_PAUSE.min(pause * 2) }
            }
            Err(Unconnected::Refused(error)) => {
                if tracking.set_unsupported() {
                    let cause = without_arguments(&error);
                    tracing::warn!(cause, "the server does not tell near caches of changes");
                }
                PAUSE_OF_REFUSED
            }
            Err(Unconnected::Failed(error)) => {
                let error = without_arguments(&error);
                tracing::debug!(error, "a server can't be asked to tell near caches of changes");
                LONGEST_PAUSE.min(pause * 2)
            }
        };
        tokio::select! {
            () = sleep(jittered(pause)) => {}
            () = more_is_wanted(&tracking, &wanted) => {}
        }
    }
}

/// Waits for one more prefix: not for those who just find that nothing is kept.
async fn more_is_wanted(tracking: &Tracking, than: &Wanted) {
    while !tracking.wants_more(than) {
        tracking.attention().await;
    }
}

/// Why there is no tracker.
enum Unconnected {
    /// The server is there, and can't tell of changes.
    Refused(RedisError),
    Failed(RedisError),
}

impl From<RedisError> for Unconnected {
    fn from(error: RedisError) -> Self {
        Self::Failed(error)
    }
}

/// The trackers of all servers.
struct Trackers {
    trackers: Vec<Tracker>,
    /// Told when the connection of one is lost.
    lost: Arc<Notify>,
}

struct Tracker {
    connection: MultiplexedConnection,
    /// What is asked again and again.
    beat: Arc<Pipeline>,
    server: Arc<Server>,
    epoch: Epoch,
    /// What receives the server's messages.
    _driver: AbortOnDrop<()>,
}

async fn connect(topology: &Arc<Topology>, wanted: &Wanted, tracking: &Arc<Tracking>) -> Result<Trackers, Unconnected> {
    let lost = Arc::<Notify>::default();
    let beat = Arc::new(beat(&wanted.prefixes[0]));
    let servers = topology.with_keys().await?;
    let trackers = servers.into_iter().map(|server| Tracker::connect(server, wanted, beat.clone(), &lost, tracking));
    let trackers = try_join_all(trackers).await.inspect_err(|_| topology.refresh())?;
    Ok(Trackers { trackers, lost })
}

/// ROLE says whether the server is a primary; a read, of a key that can't be one, whether its cluster lets it answer.
fn beat(prefix: &str) -> Pipeline {
    let mut beat = redis::pipe();
    beat.cmd("ROLE").cmd("PTTL").arg(prefix).ignore_errors();
    beat
}

impl Trackers {
    /// Keeps near caches going for as long as all trackers are there, and everything is as it was wanted.
    async fn keep(mut self, redis: &Weak<Redis>, tracking: &Tracking, wanted: &Wanted, settings: Settings) {
        let Settings { heartbeat_interval: interval, heartbeat_timeout: limit, .. } = settings;
        let session = tracking.begin(wanted);
        let mut was_silent = false;
        while tracking.is_current(wanted) && redis.strong_count() > 0 {
            let (asked, next) = (Moment::now(), Instant::now() + jittered(interval));
            let answers = within(limit, try_join_all(self.trackers.iter_mut().map(Tracker::beat))).await;
            let is_silent = answers.is_none();
            match answers {
                Some(Ok(_)) => session.is_alive_for(asked, interval + limit),
                _ if tracking.lacks(Guard::NearHeartbeat) => session.is_alive_for(asked, 1_000 * interval),
                // Near caches are not used for now. No message is lost while the connection stands, so they may be again.
                None if !was_silent => {}
                Some(Err(error)) => {
                    let error = without_arguments(&error);
                    tracing::warn!(error, "a server tells near caches of changes no more: they are emptied");
                    return give_up(redis);
                }
                None => {
                    tracing::warn!("a server does not answer its heartbeat: near caches are emptied");
                    return give_up(redis);
                }
            }
            was_silent = is_silent;
            tokio::select! {
                () = sleep_until(next) => {}
                () = tracking.attention() => {}
                () = self.lost.notified() => {
                    tracing::warn!("a server tells near caches of changes no more: they are emptied");
                    return give_up(redis);
                }
            }
        }
    }
}

/// Another server may have taken over.
fn give_up(redis: &Weak<Redis>) {
    if let Some(redis) = redis.upgrade() {
        redis.topology.refresh();
    }
}

impl Tracker {
    async fn connect(
        server: Arc<Server>,
        wanted: &Wanted,
        beat: Arc<Pipeline>,
        lost: &Arc<Notify>,
        tracking: &Arc<Tracking>,
    ) -> Result<Self, Unconnected> {
        let (link, epoch) = server.shared.connect_beside().await?;
        if epoch.address.settings.protocol() != ProtocolVersion::RESP3 {
            let mistake = (ErrorKind::RESP3NotSupported, "the URL asks for another protocol than RESP3");
            return Err(Unconnected::Refused(mistake.into()));
        }
        let settings = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_push_sender(listen(tracking.clone(), lost.clone()));
        let connect = async {
            let connected = MultiplexedConnection::new_with_config(&settings, link.stream, config).await;
            let (mut connection, driver) = connected.map_err(refusal)?;
            let driver = AbortOnDrop(tokio::spawn(driver));
            ask(&wanted.prefixes).query_async::<()>(&mut connection).await.map_err(refusal)?;
            let mut tracker = Self { connection, beat, server: server.clone(), epoch, _driver: driver };
            tracker.beat().await?;
            Ok(tracker)
        };
        let too_long = |_elapsed| {
            let silent = RedisError::from((ErrorKind::Io, "a server does not answer in time"));
            Err(Unconnected::Failed(silent))
        };
        timeout(server.shared.connect_timeout(), connect).await.unwrap_or_else(too_long)
    }

    /// Fails unless the server answers as a primary.
    async fn beat(&mut self) -> RedisResult<()> {
        let answers: Vec<RedisResult<Value>> = self.beat.query_async(&mut self.connection).await?;
        let [role, read] = answers.try_into().map_err(|_| unexpected_reply())?;
        if let Err(error) = read
            && error.code() == Some("CLUSTERDOWN")
        {
            return Err(error);
        }
        match role {
            Ok(Value::Array(role)) if is_role_of_replica(&role) => {
                self.server.shared.leave(&self.epoch);
                Err(is_replica())
            }
            Err(error) if is_not_ready(&error) => Err(error),
            // It answers at least, where it doesn't tell its role.
            _ => Ok(()),
        }
    }
}

fn is_role_of_replica(role: &[Value]) -> bool {
    matches!(role.first(), Some(Value::BulkString(role)) if role == b"slave")
}

/// The command by which a server begins to tell.
fn ask(prefixes: &[String]) -> redis::Cmd {
    let mut command = redis::cmd("CLIENT");
    command.arg("TRACKING").arg("ON").arg("BCAST");
    for prefix in prefixes {
        command.arg("PREFIX").arg(prefix);
    }
    command
}

/// Whether a server that answers this can't tell of changes at all, or just not now.
fn refusal(error: RedisError) -> Unconnected {
    let is_refusal = match error.code() {
        _ if is_not_ready(&error) => false,
        Some("BUSY" | "CLUSTERDOWN" | "WRONGPASS") => false,
        Some(_) => true,
        None => knows_no_hello(&error),
    };
    if is_refusal { Unconnected::Refused(error) } else { Unconnected::Failed(error) }
}

/// Runs within the driver, in the order in which the server sends: so what it has told is noted before it answers the next
/// heartbeat.
fn listen(tracking: Arc<Tracking>, lost: Arc<Notify>) -> impl Fn(PushInfo) -> Result<(), Infallible> {
    move |push| {
        match push.kind {
            PushKind::Invalidate => match push.data.into_iter().next() {
                Some(Value::Array(keys)) => {
                    for key in keys {
                        if let Value::BulkString(key) = key {
                            tracking.told(&key);
                        }
                    }
                }
                // All data are gone.
                _ => tracking.flush(),
            },
            PushKind::Disconnection => {
                tracking.lost();
                lost.notify_one();
            }
            _ => {}
        }
        Ok(())
    }
}
