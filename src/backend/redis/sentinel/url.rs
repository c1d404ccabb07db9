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

/// The settings in the query, still encoded.
#[derive(Default)]
struct Query<'a> {
    protocol: Option<&'a str>,
    sentinel_user: &'a str,
    sentinel_password: Option<&'a str>,
}

impl Sentinels {
    pub(in crate::backend::redis) fn parse(url: &Url<'_>, tls: Option<&Connector>) -> Result<Self, Error> {
        if url.settings.contains('#') {
            return Err(url.mistake("nothing may follow a `#`"));
        }
        let (path, query) = url.settings.split_once('?').unwrap_or((url.settings, ""));
        let query = Query::parse(query).map_err(|mistake| url.mistake(mistake))?;
        let path = path.strip_prefix('/').unwrap_or(path);
        let (name, db) = path.split_once('/').unwrap_or((path, ""));
        check_name(name).map_err(|mistake| url.mistake(mistake))?;

        let protocol = query.protocol.map(|protocol| format!("?protocol={protocol}")).unwrap_or_default();
        let master = Address::parse(url, url.user, "localhost", &format!("/{db}{protocol}"), tls)?;
        let user = query.user();
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

impl<'a> Query<'a> {
    fn parse(query: &'a str) -> Result<Self, &'static str> {
        let mut parsed = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("protocol", protocol)) => parsed.protocol = Some(protocol),
                Some(("sentinel_user", user)) => parsed.sentinel_user = user,
                Some(("sentinel_password", password)) => parsed.sentinel_password = Some(password),
                _ => return Err("after the `?`, it may have protocol, sentinel_user and sentinel_password"),
            }
        }
        if !parsed.sentinel_user.is_empty() && parsed.sentinel_password.is_none() {
            return Err("sentinel_user needs a sentinel_password");
        }
        Ok(parsed)
    }

    /// The user and the password as they are written before a host, with the `@`. More characters have to be encoded there than
    /// in a query.
    fn user(&self) -> String {
        let encoded = |text: &str| text.replace('/', "%2F").replace('?', "%3F").replace('@', "%40").replace(':', "%3A");
        let password = self.sentinel_password.map(|password| format!(":{}", encoded(password)));
        encoded(self.sentinel_user) + &password.unwrap_or_default() + "@"
    }
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("after the hosts, the name of the master is missing, as in /mymaster");
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return Err("the name of a master has only letters, digits, `.`, `_` and `-`");
    }
    Ok(())
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
