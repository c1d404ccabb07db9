//! Sentinels: their URL, and how the shared connection goes to the master that they name, and follows a failover.
//!
//! They are asked before each attempt to connect, and now and then while connected. Their word is not enough: over each
//! connection the server itself is asked for its role too, since one that was demoted goes on answering reads.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{ErrorKind, RedisError, RedisResult};
use tokio::time::{Instant, timeout};

use super::address::{Address, ConnectOptions};
use super::connect::{Link, connect};
use super::errors::{
    advice_on, is_cut_off, is_forbidden, is_of_replica, is_unknown_command, not_answered, provider_failed,
    unexpected_reply, without_arguments,
};
use super::resp::{Reply, command};
use super::tls;
use super::topology::Place;
use crate::backend::url::Url;
use crate::backoff::jittered;
use crate::error::Error;

const DEFAULT_PORT: u16 = 26379;
/// How often the sentinels are asked while connected, and while an attempt to connect is under way. Jittered to 50 to 100 %.
const POLL: Duration = Duration::from_millis(400);
const POLL_WHILE_CONNECTING: Duration = Duration::from_millis(200);
/// The share of `connect_timeout` for the sentinels' answers, and again for the greeting of their master.
const SHARE: f64 = 0.4;

const ADVICE_SENTINELS: &str =
    "check that the sentinels are up and the URL right, rediss+sentinel:// for TLS and redis+sentinel:// without";
const ADVICE_QUORUM: &str =
    "check with SENTINEL CKQUORUM that enough sentinels are up to agree on a master, and that it can be reached";
const ADVICE_ANNOUNCE: &str = "have the servers announce hosts that can be connected to, and that their certificates name, or set map_address or \
     tls_server_name";

/// The sentinels to ask, the name of the master, and the users to connect as. Its `Display` shows only places and name.
pub(in crate::backend) struct Sentinels {
    sentinels: Vec<Address>,
    name: String,
    /// The master's address, but for its place.
    master: Address,
}

impl Sentinels {
    pub(super) fn parse(url: &Url<'_>, options: &ConnectOptions) -> Result<Self, Error> {
        if url.settings.contains('#') {
            return Err(url.mistake("nothing may follow a `#`"));
        }
        let (path, query) = url.settings.split_once('?').unwrap_or((url.settings, ""));
        let (mut protocol, mut user, mut password) = (String::new(), "", None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("protocol", version)) => protocol = format!("?protocol={version}"),
                Some(("sentinel_user", name)) => user = name,
                Some(("sentinel_password", word)) => password = Some(word),
                _ => {
                    return Err(url.mistake("after the `?`, it may have protocol, sentinel_user and sentinel_password"));
                }
            }
        }
        if !user.is_empty() && password.is_none() {
            return Err(url.mistake("sentinel_user needs a sentinel_password"));
        }
        let path = path.strip_prefix('/').unwrap_or(path);
        let (name, db) = path.split_once('/').unwrap_or((path, ""));
        if name.is_empty() {
            return Err(url.mistake("after the hosts, the name of the master is missing, as in /mymaster"));
        }
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
            return Err(url.mistake("the name of a master has only letters, digits, `.`, `_` and `-`"));
        }

        let master = Address::parse(url, url.user, "localhost", &format!("/{db}{protocol}"), options)?;
        // The sentinels' own users are in the URL, and so are their places.
        let options = &ConnectOptions { credentials: None, map_address: None, ..options.clone() };
        // Before a host, more characters have to be encoded than in a query.
        let encoded = |text: &str| text.replace('/', "%2F").replace('?', "%3F").replace('@', "%40").replace(':', "%3A");
        let password = password.map(|password| format!(":{}", encoded(password))).unwrap_or_default();
        let user = format!("{}{password}@", encoded(user));
        let sentinel = |host| match host {
            "" => Err(url.mistake("a host is missing")),
            _ => Address::parse(url, &user, &with_port(host), "/?protocol=resp2", options),
        };
        let sentinels = url.hosts.split(',').map(sentinel).collect::<Result<_, _>>()?;
        Ok(Self { sentinels, name: name.to_owned(), master })
    }

    /// Asks the sentinels, and connects to the server that they name. If they name another one meanwhile, connects to that.
    pub(super) async fn connect(&self, deadline: Instant, connect_timeout: Duration) -> RedisResult<Link> {
        // Connected anew each time: connections belong to the runtime that they were made on.
        let mut sentinels = self.each();
        loop {
            let Named { place, .. } = self.survey(&mut sentinels, connect_timeout).await?;
            let address = Arc::new(self.master.at(place.clone()));
            if let Some(tls) = &address.options.tls {
                let impossible = |mistake| NoMaster::of_master(&place, &format!(": {mistake}"), ADVICE_ANNOUNCE);
                tls.check_name(&address.reached_at().host).map_err(impossible)?;
            }
            tokio::select! {
                connected = connect(&address, None, deadline, connect_timeout.mul_f64(SHARE)) => {
                    let link = connected.map_err(|error| {
                        // The provider's failure says nothing about the master.
                        if provider_failed(&error).is_some() { error } else { NoMaster::unusable(&place, &error).into() }
                    })?;
                    tracing::info!(address = %self, master = %place, "connected to the master that the sentinels name");
                    return Ok(link);
                }
                // If the named master is gone, connecting to it may hang until its timeout.
                () = self.poll(&mut sentinels, POLL_WHILE_CONNECTING, connect_timeout, |named| named.place != place) => {}
            }
        }
    }

    /// Waits until more than half of the sentinels name another master than the one at this place. A minority may be behind, and
    /// must not make us leave a live master.
    pub(super) async fn wait_for_new_master(&self, than: &Place, connect_timeout: Duration) {
        self.poll(&mut self.each(), POLL, connect_timeout, |named| named.by_majority && named.place != *than).await;
    }

    /// Asks the sentinels after each pause until they name a server that is `wanted`.
    async fn poll(
        &self,
        sentinels: &mut [Sentinel],
        pause: Duration,
        connect_timeout: Duration,
        is_wanted: impl Fn(&Named) -> bool,
    ) {
        loop {
            tokio::time::sleep(jittered(pause)).await;
            if self.survey(sentinels, connect_timeout).await.is_ok_and(|named| is_wanted(&named)) {
                return;
            }
        }
    }

    fn each(&self) -> Vec<Sentinel> {
        let unconnected = |address| Sentinel { address: Arc::new(address), connection: None };
        self.sentinels.iter().cloned().map(unconnected).collect()
    }

    /// Asks all sentinels at once. The result is the place that most of the answers name; it is known as soon as more than half of
    /// all sentinels name it. A tie is an error.
    async fn survey(&self, sentinels: &mut [Sentinel], connect_timeout: Duration) -> Result<Named, NoMaster> {
        let (name, limit) = (&self.name, connect_timeout.mul_f64(SHARE));
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
}

/// A host of the URL, with the sentinels' default port if it has none.
fn with_port(host: &str) -> String {
    let after_address = host.rsplit_once(']').map_or(host, |(_, after)| after);
    if after_address.contains(':') { host.to_owned() } else { format!("{host}:{DEFAULT_PORT}") }
}

impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Address::show(&self.sentinels, "sentinel"), self.name)
    }
}

/// One sentinel, and the connection to it that is kept.
struct Sentinel {
    address: Arc<Address>,
    connection: Option<Link>,
}

impl Sentinel {
    async fn ask_within(&mut self, name: &str, limit: Duration) -> Result<Option<Place>, NoMaster> {
        let answer = timeout(limit, self.ask(name, limit)).await.unwrap_or_else(|_elapsed| Err(not_answered()));
        answer.map_err(|error| NoMaster::unhelpful(&self.address.place, &error))
    }

    async fn ask(&mut self, name: &str, limit: Duration) -> RedisResult<Option<Place>> {
        // Take the connection out while it is used: if this future is dropped half way, it must not be used again.
        if let Some(link) = self.connection.take()
            && let Ok(reply) = self.ask_over(link, name).await
        {
            return master(reply?);
        }
        // There was no connection, or it was cut.
        let link = connect(&self.address, None, Instant::now() + limit, limit).await?;
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
struct Named {
    place: Place,
    /// Whether more than half of them name it. If not, it may be an old master that has come back, named by a sentinel that
    /// doesn't know of the failover yet.
    by_majority: bool,
}

/// Why there is no master, and what to do about it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{problem}")]
struct NoMaster {
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

    /// A problem with the master that the sentinels name.
    fn of_master(place: &Place, problem: &str, advice: &'static str) -> Self {
        Self { problem: format!("{place}, the master by the sentinels{problem}"), advice }
    }

    fn unusable(place: &Place, error: &RedisError) -> Self {
        if error.is_timeout() {
            return Self::of_master(place, ", does not answer", ADVICE_QUORUM);
        }
        if is_of_replica(error) {
            let advice = "wait until a failover has ended, or check with SENTINEL CKQUORUM that one can";
            return Self::of_master(place, ", says that it is a replica", advice);
        }
        let cause = without_arguments(error);
        let advice = match tls::advice(error) {
            Some(_) if cause.contains("not valid for name") => ADVICE_ANNOUNCE,
            Some(advice) => advice,
            None if is_cut_off(error) => {
                "check that the URL is right, rediss+sentinel:// for TLS and redis+sentinel:// without"
            }
            None if error.is_io_error() => ADVICE_QUORUM,
            None => advice_on(error),
        };
        Self::of_master(place, &format!(": {cause}"), advice)
    }

    /// For a sentinel that does not help.
    fn unhelpful(place: &Place, error: &RedisError) -> Self {
        if error.is_timeout() {
            let problem = format!("the sentinel {place} does not answer");
            return Self { problem, advice: ADVICE_SENTINELS };
        }
        let advice = match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => {
                "put the right ?sentinel_user=..&sentinel_password=.. into the URL"
            }
            _ if is_forbidden(error) => {
                "allow the sentinel_user +sentinel|get-master-addr-by-name in the sentinels' ACL"
            }
            _ if is_unknown_command(error) => {
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
pub(super) fn advice(error: &RedisError) -> Option<&'static str> {
    let source: &Arc<dyn StdError + Send + Sync> = error.source()?.downcast_ref()?;
    let no_master: &NoMaster = source.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()?;
    Some(no_master.advice)
}
