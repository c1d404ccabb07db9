//! What a `redis+sentinel://` URL says.

use std::fmt;

use redis::ConnectionAddr;

use super::survey::{NoMaster, Sentinel};
use crate::backend::redis::tls::Tls;
use crate::backend::redis::topology::Place;
use crate::backend::redis::url::{Address, check_userinfo};

const DEFAULT_PORT: u16 = 26379;

/// Which sentinels to ask for which master, and as whom to talk to both. Its `Display` is the places and the name alone.
pub(in crate::backend) struct Sentinels {
    scheme: String,
    sentinels: Vec<Address>,
    name: String,
    /// How to talk to the master, wherever it is.
    master: Address,
    tls: Tls,
}

/// The settings that the query may hold, as they stand in it.
#[derive(Default)]
struct Query<'a> {
    protocol: Option<&'a str>,
    sentinel_user: &'a str,
    sentinel_password: Option<&'a str>,
}

impl Sentinels {
    pub(in crate::backend) fn parse(url: &str) -> Result<Self, String> {
        check_userinfo(url)?;
        if url.contains('#') {
            return Err("nothing may follow a `#`".to_owned());
        }
        let (scheme, rest) = url.split_once("://").ok_or("it has no scheme")?;
        let one_server = scheme.strip_suffix("+sentinel").unwrap_or(scheme);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let query = Query::parse(query)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
        let (name, db) = path.split_once('/').unwrap_or((path, ""));
        check_name(name)?;

        let protocol = query.protocol.map(|protocol| format!("?protocol={protocol}")).unwrap_or_default();
        let master = Address::parse(&format!("{one_server}://{user}@localhost/{db}{protocol}"))?;
        let sentinel = |host: &str| {
            Address::parse(&format!("{one_server}://{}@{}/?protocol=resp2", query.user(), with_port(host)?))
        };
        let sentinels = hosts.split(',').map(sentinel).collect::<Result<_, _>>()?;
        Ok(Self { scheme: scheme.to_owned(), sentinels, name: name.to_owned(), master, tls: Tls::default() })
    }

    /// Adds the certificates, for the sentinels and for the master.
    pub(in crate::backend) fn secure(self, tls: &Tls) -> Result<Self, String> {
        let sentinels = self.sentinels.into_iter().map(|sentinel| tls.secure(sentinel)).collect::<Result<_, _>>()?;
        Ok(Self { sentinels, tls: tls.clone(), ..self })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The sentinels, not connected yet.
    pub(super) fn each(&self) -> Vec<Sentinel> {
        self.sentinels.iter().map(|sentinel| Sentinel::new(place(sentinel), sentinel.clone())).collect()
    }

    /// The address that the master has at this place.
    pub(super) fn address_at(&self, place: &Place) -> Result<Address, NoMaster> {
        let Place { host, port } = place.clone();
        let address = match self.master.info.addr() {
            ConnectionAddr::TcpTls { .. } => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            _ => ConnectionAddr::Tcp(host, port),
        };
        let address = Address { info: self.master.info.clone().set_addr(address), ..self.master.clone() };
        self.tls.secure(address).map_err(|mistake| NoMaster::impossible(place, &mistake))
    }
}

impl<'a> Query<'a> {
    fn parse(query: &'a str) -> Result<Self, String> {
        let mut parsed = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("protocol", protocol)) => parsed.protocol = Some(protocol),
                Some(("sentinel_user", user)) => parsed.sentinel_user = user,
                Some(("sentinel_password", password)) => parsed.sentinel_password = Some(password),
                _ => return Err("after the `?`, it may have protocol, sentinel_user and sentinel_password".to_owned()),
            }
        }
        if !parsed.sentinel_user.is_empty() && parsed.sentinel_password.is_none() {
            return Err("sentinel_user needs a sentinel_password".to_owned());
        }
        Ok(parsed)
    }

    /// The user and the password as they stand before a host, where more has to be encoded.
    fn user(&self) -> String {
        let encoded = |text: &str| text.replace('/', "%2F").replace('?', "%3F").replace('@', "%40").replace(':', "%3A");
        let password = self.sentinel_password.map(|password| format!(":{}", encoded(password)));
        encoded(self.sentinel_user) + &password.unwrap_or_default()
    }
}

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("after the hosts, the name of the master is missing, as in /mymaster".to_owned());
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return Err("the name of a master has only letters, digits, `.`, `_` and `-`".to_owned());
    }
    Ok(())
}

/// A host as it stands in the URL, with the sentinels' own port if it has none.
fn with_port(host: &str) -> Result<String, String> {
    let after_address = host.rsplit_once(']').map_or(host, |(_, after)| after);
    match host {
        "" => Err("a host is missing".to_owned()),
        _ if after_address.contains(':') => Ok(host.to_owned()),
        _ => Ok(format!("{host}:{DEFAULT_PORT}")),
    }
}

fn place(sentinel: &Address) -> Place {
    match sentinel.info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Place { host: host.clone(), port: *port }
        }
        other => Place { host: other.to_string(), port: DEFAULT_PORT },
    }
}

impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places: Vec<_> = self.sentinels.iter().map(|sentinel| place(sentinel).to_string()).collect();
        write!(f, "{}://{}/{}", self.scheme, places.join(","), self.name)
    }
}
