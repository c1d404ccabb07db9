//! The parts of a `redis+sentinel://` URL.

use std::fmt;

use super::survey::{NoMaster, Sentinel};
use crate::backend::redis::address::Address;
use crate::backend::redis::tls::Connector;
use crate::backend::redis::topology::Place;
use crate::backend::url::Url;
use crate::error::Error;

const DEFAULT_PORT: u16 = 26379;

/// The sentinels to ask, the name of the master, and the users to connect as. Its `Display` shows only places and name.
pub(in crate::backend) struct Sentinels {
    sentinels: Vec<Address>,
    pub(super) name: String,
    /// The master's address, but for its place.
    master: Address,
}

impl Sentinels {
    pub(in crate::backend::redis) fn parse(url: &Url<'_>, tls: Option<&Connector>) -> Result<Self, Error> {
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

    /// The sentinels, not connected yet.
    pub(super) fn each(&self) -> Vec<Sentinel> {
        self.sentinels.iter().cloned().map(Sentinel::new).collect()
    }

    /// The address that the master has at this place.
    pub(super) fn address_at(&self, place: &Place) -> Result<Address, NoMaster> {
        if let Some(tls) = &self.master.tls {
            tls.check_name(&place.host).map_err(|mistake| NoMaster::impossible(place, &mistake))?;
        }
        Ok(self.master.at(place.clone()))
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
