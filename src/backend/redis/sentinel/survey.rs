//! A survey of the sentinels, and the errors with advice when it finds no master.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{ErrorKind, RedisError, RedisResult};
use tokio::time::timeout;

use super::super::address::Address;
use super::super::connect::{Link, connect};
use super::super::errors::{advice_on, is_cut_off, is_forbidden, is_of_replica, unexpected_reply, without_arguments};
use super::super::resp::{Reply, command};
use super::super::tls;
use super::super::topology::Place;

const ADVICE_SENTINELS: &str =
    "check that the sentinels are up and the URL right, rediss+sentinel:// for TLS and redis+sentinel:// without";
const ADVICE_TLS: &str = "check that the URL is right, rediss+sentinel:// for TLS and redis+sentinel:// without";
pub(super) const ADVICE_QUORUM: &str =
    "check with SENTINEL CKQUORUM that enough sentinels are up to agree on a master, and that it can be reached";
pub(super) const ADVICE_ANNOUNCE: &str =
    "have the servers announce hosts that can be connected to, and that their certificates name";

/// One sentinel, and the connection to it that is kept.
pub(super) struct Sentinel {
    address: Arc<Address>,
    connection: Option<Link>,
}

impl Sentinel {
    pub(super) fn new(address: Address) -> Self {
        Self { address: Arc::new(address), connection: None }
    }

    async fn ask_within(&mut self, name: &str, limit: Duration) -> Result<Option<Place>, NoMaster> {
        let Ok(answer) = timeout(limit, self.ask(name)).await else {
            let problem = format!("the sentinel {} does not answer", self.address.place);
            return Err(NoMaster { problem, advice: ADVICE_SENTINELS });
        };
        answer.map_err(|error| NoMaster::unhelpful(&self.address.place, &error))
    }

    async fn ask(&mut self, name: &str) -> RedisResult<Option<Place>> {
        // Take the connection out while it is used: if this future is dropped half way, it must not be used again.
        if let Some(link) = self.connection.take()
            && let Ok(reply) = self.ask_over(link, name).await
        {
            return master(reply?);
        }
        // There was no connection, or it was cut.
        let link = connect(&self.address).await?;
        master(self.ask_over(link, name).await??)
    }

    async fn ask_over(&mut self, mut link: Link, name: &str) -> RedisResult<RedisResult<Reply>> {
        let command = command(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name.as_bytes()]);
        let reply = link.exchange(&[command]).await?.pop().ok_or_else(unexpected_reply)?;
        self.connection = Some(link);
        Ok(reply)
    }
}

fn master(reply: Reply) -> RedisResult<Option<Place>> {
    if reply.is_nil() {
        return Ok(None);
    }
    let mut place = reply.array()?.into_iter();
    let (Some(host), Some(port)) = (place.next(), place.next()) else {
        return Err(unexpected_reply());
    };
    let (host, port) = (host?.text()?, port?.text()?.parse().map_err(|_| unexpected_reply())?);
    Ok(Some(Place { host, port }))
}

/// The master by the sentinels.
pub(super) struct Named {
    pub(super) place: Place,
    /// Whether more than half of them name it. If not, it may be an old master that has come back, named by a sentinel that
    /// doesn't know of the failover yet.
    pub(super) by_majority: bool,
}

/// Asks all sentinels at once, each within `limit`. The result is the place that most of the answers name; it is known as soon
/// as more than half of all sentinels name it. A tie is an error.
pub(super) async fn survey(sentinels: &mut [Sentinel], name: &str, limit: Duration) -> Result<Named, NoMaster> {
    let all = sentinels.len();
    let mut asked: FuturesUnordered<_> =
        sentinels.iter_mut().map(|sentinel| sentinel.ask_within(name, limit)).collect();
    let mut votes = BTreeMap::<Place, usize>::new();
    let mut no_master = None;
    while let Some(answer) = asked.next().await {
        match answer {
            Ok(Some(place)) => {
                let count = votes.entry(place).or_default();
                *count += 1;
                if *count * 2 > all {
                    break;
                }
            }
            Ok(None) => no_master = Some(NoMaster::unnamed(name)),
            Err(error) => no_master = no_master.or(Some(error)),
        }
    }
    let most = votes.values().copied().max().unwrap_or(0);
    let mut named = votes.into_iter().filter(|(_, count)| *count == most).map(|(place, _)| place);
    match (named.next(), named.next()) {
        (None, _) => Err(no_master.unwrap_or_else(|| NoMaster::unnamed(name))),
        (Some(place), None) => Ok(Named { place, by_majority: most * 2 > all }),
        _ => {
            let problem = format!("the sentinels disagree about the master `{name}`");
            Err(NoMaster { problem, advice: ADVICE_QUORUM })
        }
    }
}

/// Why there is no master, and what to do about it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{problem}")]
pub(super) struct NoMaster {
    problem: String,
    advice: &'static str,
}

impl NoMaster {
    fn unnamed(name: &str) -> Self {
        Self {
            problem: format!("the sentinels know no master `{name}`"),
            advice: "write the name of the master into the URL as SENTINEL MASTERS shows it",
        }
    }

    /// What is wrong with the master by the sentinels.
    pub(super) fn of_master(place: &Place, problem: &str, advice: &'static str) -> Self {
        Self { problem: format!("{place}, the master by the sentinels{problem}"), advice }
    }

    pub(super) fn unusable(place: &Place, error: &RedisError) -> Self {
        if is_of_replica(error) {
            let advice = "wait until a failover has ended, or check with SENTINEL CKQUORUM that one can";
            return Self::of_master(place, ", says that it is a replica", advice);
        }
        let cause = without_arguments(error);
        let advice = match tls::advice(error) {
            Some(_) if cause.contains("not valid for name") => ADVICE_ANNOUNCE,
            Some(advice) => advice,
            None if is_cut_off(error) => ADVICE_TLS,
            None if error.is_io_error() => ADVICE_QUORUM,
            None => advice_on(error),
        };
        Self::of_master(place, &format!(": {cause}"), advice)
    }

    /// For a sentinel that does not help.
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

/// The advice of a [`NoMaster`] inside of an error.
pub(in crate::backend::redis) fn advice(error: &RedisError) -> Option<&'static str> {
    let source: &Arc<dyn StdError + Send + Sync> = error.source()?.downcast_ref()?;
    let no_master: &NoMaster = source.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()?;
    Some(no_master.advice)
}
