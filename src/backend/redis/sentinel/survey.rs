//! Asking the sentinels, and what to do when they don't help.

use std::cmp::Reverse;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, RedisError, RedisResult};
use tokio::time::timeout;

use super::super::errors::{advice_on, is_cut_off, is_forbidden, without_arguments};
use super::super::tls;

const ADVICE_SENTINELS: &str =
    "check that the sentinels are up and the URL right, rediss+sentinel:// for TLS and redis+sentinel:// without";
const ADVICE_TLS: &str = "check that the URL is right, rediss+sentinel:// for TLS and redis+sentinel:// without";
const ADVICE_QUORUM: &str =
    "check with SENTINEL CKQUORUM that enough sentinels are up to agree on a master, and that it can be reached";
const ADVICE_ANNOUNCE: &str =
    "have the servers announce hosts that can be connected to, and that their certificates name";

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// One sentinel, and the connection to it that is kept.
pub(super) struct Sentinel {
    place: Place,
    info: ConnectionInfo,
    connection: Option<MultiplexedConnection>,
}

impl Sentinel {
    pub(super) fn new(place: Place, info: ConnectionInfo) -> Self {
        Self { place, info, connection: None }
    }

    async fn ask_within(&mut self, name: &str, limit: Duration) -> Result<Option<Place>, NoMaster> {
        let Ok(answer) = timeout(limit, self.ask(name, limit)).await else {
            self.connection = None;
            let problem = format!("the sentinel {} does not answer", self.place);
            return Err(NoMaster { problem, advice: ADVICE_SENTINELS });
        };
        answer.map_err(|error| NoMaster::unhelpful(&self.place, &error))
    }

    async fn ask(&mut self, name: &str, limit: Duration) -> RedisResult<Option<Place>> {
        if let Some(connection) = &mut self.connection {
            match master_of(connection, name).await {
                // It was cut since.
                Err(error) if error.is_io_error() => self.connection = None,
                answer => return answer,
            }
        }
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(limit)).set_response_timeout(None);
        let client = Client::open(self.info.clone())?;
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        master_of(self.connection.insert(connection), name).await
    }
}

async fn master_of(connection: &mut MultiplexedConnection, name: &str) -> RedisResult<Option<Place>> {
    let mut command = redis::cmd("SENTINEL");
    command.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    let answer: Option<(String, u16)> = command.query_async(connection).await?;
    Ok(answer.map(|(host, port)| Place { host, port }))
}

/// What the sentinels say.
pub(super) struct Named {
    pub(super) place: Place,
    /// Whether more than half of them say so. If not, it may be the place of an old master which has come back, named by a
    /// sentinel that doesn't know of the failover yet.
    pub(super) by_majority: bool,
}

/// Asks all sentinels at a time, each within `limit`: the place of the master that most of those name that answer. What
/// more than half of all say is taken at once. A place that is not the one named most is never taken.
pub(super) async fn survey(sentinels: &mut [Sentinel], name: &str, limit: Duration) -> Result<Named, NoMaster> {
    let all = sentinels.len();
    let mut asked: FuturesUnordered<_> =
        sentinels.iter_mut().map(|sentinel| sentinel.ask_within(name, limit)).collect();
    let mut votes: Vec<(Place, usize)> = Vec::new();
    let mut no_master = None;
    while let Some(answer) = asked.next().await {
        match answer {
            Ok(Some(place)) => {
                let count = count(&mut votes, place);
                if count * 2 > all {
                    break;
                }
            }
            Ok(None) => no_master = Some(NoMaster::unnamed(name)),
            Err(error) => no_master = no_master.or(Some(error)),
        }
    }
    votes.sort_by_key(|(_, count)| Reverse(*count));
    match votes.as_slice() {
        [] => Err(no_master.unwrap_or_else(|| NoMaster::unnamed(name))),
        [(_, first), (_, second), ..] if first == second => Err(NoMaster::disputed(name)),
        [(place, count), ..] => Ok(Named { place: place.clone(), by_majority: count * 2 > all }),
    }
}

fn count(votes: &mut Vec<(Place, usize)>, place: Place) -> usize {
    if let Some((_, count)) = votes.iter_mut().find(|(named, _)| *named == place) {
        *count += 1;
        return *count;
    }
    votes.push((place, 1));
    1
}

/// Why no master is known, and what to do about it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{problem}")]
pub(super) struct NoMaster {
    problem: String,
    advice: &'static str,
}

impl NoMaster {
    pub(super) fn unnamed(name: &str) -> Self {
        Self {
            problem: format!("the sentinels know no master `{name}`"),
            advice: "write the name of the master into the URL as SENTINEL MASTERS shows it",
        }
    }

    fn disputed(name: &str) -> Self {
        Self { problem: format!("the sentinels disagree about the master `{name}`"), advice: ADVICE_QUORUM }
    }

    pub(super) fn silent(place: &Place) -> Self {
        Self { problem: format!("{place}, the master by the sentinels, does not answer"), advice: ADVICE_QUORUM }
    }

    pub(super) fn replica(place: &Place) -> Self {
        Self {
            problem: format!("{place}, the master by the sentinels, says that it is a replica"),
            advice: "wait until a failover has ended, or check with SENTINEL CKQUORUM that one can",
        }
    }

    pub(super) fn impossible(place: &Place, mistake: &str) -> Self {
        Self { problem: format!("{place}, the master by the sentinels: {mistake}"), advice: ADVICE_ANNOUNCE }
    }

    pub(super) fn unusable(place: &Place, error: &RedisError) -> Self {
        let cause = without_arguments(error);
        let advice = match tls::advice(error) {
            Some(_) if cause.contains("not valid for name") => ADVICE_ANNOUNCE,
            Some(advice) => advice,
            None if is_cut_off(error) => ADVICE_TLS,
            None if error.is_io_error() => ADVICE_QUORUM,
            None => advice_on(error),
        };
        Self { problem: format!("{place}, the master by the sentinels: {cause}"), advice }
    }

    /// What is wrong with a sentinel.
    fn unhelpful(place: &Place, error: &RedisError) -> Self {
        let is_unknown_command = || error.detail().is_some_and(|detail| detail.starts_with("unknown command"));
        let advice = match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => {
                "put the right ?sentinel_user=..&sentinel_password=.. into the URL"
            }
            _ if is_forbidden(error) => {
                "allow the sentinel_user +sentinel|get-master-addr-by-name in the sentinels' ACL"
            }
            _ if is_unknown_command() => {
                "name the sentinels in the URL: this is a server, without sentinels use redis://"
            }
            _ => ADVICE_SENTINELS,
        };
        let advice = tls::advice(error).unwrap_or(advice);
        Self { problem: format!("the sentinel {place}: {}", without_arguments(error)), advice }
    }
}

impl From<NoMaster> for RedisError {
    fn from(no_master: NoMaster) -> Self {
        io::Error::other(no_master).into()
    }
}

/// What to do about an error, if it is that no master is known.
pub(in crate::backend::redis) fn advice(error: &RedisError) -> Option<&'static str> {
    let source: &Arc<dyn StdError + Send + Sync> = error.source()?.downcast_ref()?;
    let no_master: &NoMaster = source.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()?;
    Some(no_master.advice)
}
