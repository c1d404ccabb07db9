//! Sentinels: the shared connection goes to the master that they name, and follows a failover.
//!
//! They are asked before each attempt to connect, and now and then while connected. Their word is not enough: over each
//! connection the server itself is asked for its role too, since one that was demoted goes on answering reads.

mod survey;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::RedisResult;
use tokio::time::timeout;

pub(super) use self::survey::advice;
use self::survey::{ADVICE_ANNOUNCE, ADVICE_QUORUM, Named, NoMaster, Sentinel, survey};
use super::address::Address;
use super::connect::{Link, connect};
use super::tls::Connector;
use super::topology::Place;
use crate::backend::url::Url;
use crate::backoff::jittered;
use crate::error::Error;

const DEFAULT_PORT: u16 = 26379;
/// How often the sentinels are asked while connected, and while an attempt to connect is under way. Jittered to 50 to 100 %.
const POLL: Duration = Duration::from_millis(600);
const POLL_WHILE_CONNECTING: Duration = Duration::from_millis(200);
/// The share of `connect_timeout` for the sentinels' answers, and again for the greeting of their master.
const SHARE: f64 = 0.4;

/// The sentinels to ask, the name of the master, and the users to connect as. Its `Display` shows only places and name.
pub(in crate::backend) struct Sentinels {
    sentinels: Vec<Address>,
    name: String,
    /// The master's address, but for its place.
    master: Address,
}

impl Sentinels {
    pub(super) fn parse(url: &Url<'_>, tls: Option<&Connector>) -> Result<Self, Error> {
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

        let master = Address::parse(url, url.user, "localhost", &format!("/{db}{protocol}"), tls)?;
        // Before a host, more characters have to be encoded than in a query.
        let encoded = |text: &str| text.replace('/', "%2F").replace('?', "%3F").replace('@', "%40").replace(':', "%3A");
        let password = password.map(|password| format!(":{}", encoded(password))).unwrap_or_default();
        let user = format!("{}{password}@", encoded(user));
        let sentinel = |host| match host {
            "" => Err(url.mistake("a host is missing")),
            _ => Address::parse(url, &user, &with_port(host), "/?protocol=resp2", tls),
        };
        let sentinels = url.hosts.split(',').map(sentinel).collect::<Result<_, _>>()?;
        Ok(Self { sentinels, name: name.to_owned(), master })
    }

    /// Asks the sentinels, and connects to the server that they name. If they name another one meanwhile, connects to that.
    pub(super) async fn connect(&self, connect_timeout: Duration) -> RedisResult<Link> {
        // Connected anew each time: connections belong to the runtime that they were made on.
        let mut sentinels = self.each();
        loop {
            let Named { place, .. } = self.survey(&mut sentinels, connect_timeout).await?;
            if let Some(tls) = &self.master.tls {
                let impossible = |mistake| NoMaster::of_master(&place, &format!(": {mistake}"), ADVICE_ANNOUNCE);
                tls.check_name(&place.host).map_err(impossible)?;
            }
            let address = Arc::new(self.master.at(place.clone()));
            tokio::select! {
                connected = timeout(connect_timeout.mul_f64(SHARE), connect(&address)) => {
                    let silent = |_elapsed| NoMaster::of_master(&place, ", does not answer", ADVICE_QUORUM);
                    let link = connected.map_err(silent)?;
                    let link = link.map_err(|error| NoMaster::unusable(&place, &error))?;
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

    /// The sentinels, not connected yet.
    fn each(&self) -> Vec<Sentinel> {
        self.sentinels.iter().cloned().map(Sentinel::new).collect()
    }

    async fn survey(&self, sentinels: &mut [Sentinel], connect_timeout: Duration) -> Result<Named, NoMaster> {
        survey(sentinels, &self.name, connect_timeout.mul_f64(SHARE)).await
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
