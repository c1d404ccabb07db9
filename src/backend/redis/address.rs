//! The servers that a URL names: where they are, as whom to talk to them, and over what.
//!
//! The driver parses one server's URL at a time. For several servers it gets one for each, put together from the parts.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use redis::{ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, RedisError};

use super::connect::Target;
use super::sentinel::Sentinels;
use super::tls::Connector;
use super::topology::Place;
use crate::backend::credentials::Provider;
use crate::backend::url::Url;
use crate::error::Error;

/// The servers that a URL names. Its `Display` shows only their places.
pub(in crate::backend) enum Servers {
    One(Target),
    /// Some servers of one cluster.
    Cluster(Vec<Address>),
}

/// How to connect, beside what the URL says.
#[derive(Clone)]
pub(in crate::backend) struct ConnectOptions {
    pub(in crate::backend) tls: Option<Connector>,
    pub(in crate::backend) credentials: Option<Provider>,
    pub(in crate::backend) client_name: Arc<str>,
    pub(in crate::backend) map_address: Option<Arc<MapAddress>>,
}

/// Where a server that announces this host and port is reached.
pub(in crate::backend) type MapAddress = dyn Fn(&str, u16) -> (String, u16) + Send + Sync;

/// Where a server is, and the user and the settings to connect with. Its `Display` shows only the place.
#[derive(Clone)]
pub(in crate::backend) struct Address {
    /// Empty for a Unix socket.
    pub(super) place: Place,
    /// Whether a server or a sentinel has announced the place. The URL's own places are not mapped.
    is_announced: bool,
    pub(super) socket: Option<PathBuf>,
    pub(super) settings: RedisConnectionInfo,
    pub(super) options: ConnectOptions,
    /// Whether the server may be a replica. In a cluster any server can be asked for the slots, and redirects what it doesn't have.
    pub(super) may_be_replica: bool,
}

impl Servers {
    /// The servers that a URL of a known scheme names.
    pub(in crate::backend) fn named_by(url: &Url<'_>, options: &ConnectOptions) -> Result<Self, Error> {
        // A password with a `/`, `?` or `#` that is not encoded would end the host there, and its first part would be logged.
        if url.scheme != "unix" && url.settings.contains('@') {
            return Err(url.mistake(
                "an `@` comes after the host; in users and passwords write `/`, `?`, `#`, `@` as %2F, %3F, %23, %40",
            ));
        }
        let address = |host| Address::parse(url, url.user, host, url.settings, options);
        let seed = |host| {
            let address = address(host)?;
            if address.settings.db() != 0 {
                return Err(url.mistake("a cluster has the database 0 alone"));
            }
            Ok(Address { may_be_replica: true, ..address })
        };
        Ok(match url.scheme.split_once('+') {
            Some((_, "cluster")) => Self::Cluster(url.hosts.split(',').map(seed).collect::<Result<_, _>>()?),
            Some(_) => Self::One(Target::Master(Arc::new(Sentinels::parse(url, options)?))),
            None => Self::One(Target::Server(Arc::new(address(url.hosts)?))),
        })
    }
}

impl Address {
    /// The address of one server: of the URL's scheme, and from parts of the URL or others in their place.
    pub(super) fn parse(
        url: &Url<'_>,
        user: &str,
        host: &str,
        settings: &str,
        options: &ConnectOptions,
    ) -> Result<Self, Error> {
        let scheme = url.scheme.split_once('+').map_or(url.scheme, |(scheme, _)| scheme);
        // The driver knows one fragment, `#insecure`: it would trust any server, and send it the password.
        if scheme == "rediss" && settings.contains('#') {
            return Err(url.mistake("nothing may follow a `#`; to trust a CA of your own, set tls_root_certificates"));
        }
        // The driver ignores names that it doesn't know, and with them what the user wanted: a timeout, or another database.
        let before_fragment = settings.split('#').next().unwrap_or_default();
        let query = before_fragment.split_once('?').map_or("", |(_, query)| query);
        let names: Vec<_> = query.split('&').filter(|pair| !pair.is_empty()).map(name_of).collect();
        if scheme == "unix" && names.iter().any(|name| !["db", "user", "pass", "protocol"].contains(name)) {
            return Err(url.mistake("after the `?`, it may have db, user, pass and protocol"));
        }
        if scheme != "unix" && names.iter().any(|name| *name != "protocol") {
            return Err(url.mistake("after the `?`, it may have protocol alone"));
        }
        let info = format!("{scheme}://{user}{host}{settings}").into_connection_info();
        let info = info.map_err(|error| url.mistake(&without_detail(&error)))?;
        let (place, socket) = match info.addr().clone() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => (Place { host, port }, None),
            ConnectionAddr::Unix(path) => (Place::default(), Some(path)),
            _ => return Err(url.mistake("this kind of address can't be connected to")),
        };
        if let Some(tls) = &options.tls {
            tls.check_name(&place.host).map_err(Error::config)?;
        }
        // Trackers need RESP3. A `protocol` in the URL is the user's choice, as for servers that know only RESP2.
        let mut settings = info.redis_settings().clone();
        if !names.contains(&"protocol") {
            settings = settings.set_protocol(ProtocolVersion::RESP3);
        }
        if options.credentials.is_some() && (settings.username().is_some() || settings.password().is_some()) {
            return Err(Error::config(format!(
                "credentials is set, and the cache URL `{url}` has a user or a password too: take them out of the URL, or leave \
                 the setting out"
            )));
        }
        Ok(Self { place, is_announced: false, socket, settings, options: options.clone(), may_be_replica: false })
    }

    /// The same at another place, which a server or a sentinel has announced.
    pub(super) fn at(&self, place: Place) -> Self {
        Self { place, is_announced: true, ..self.clone() }
    }

    /// The place to connect to.
    pub(super) fn reached_at(&self) -> Place {
        match &self.options.map_address {
            Some(map) if self.is_announced => {
                let (host, port) = map(&self.place.host, self.place.port);
                Place { host, port }
            }
            _ => self.place.clone(),
        }
    }

    fn scheme(&self) -> &'static str {
        if self.options.tls.is_some() { "rediss" } else { "redis" }
    }

    /// Shows several addresses as one URL.
    pub(super) fn show(addresses: &[Self], topology: &str) -> String {
        let scheme = addresses.first().map_or("redis", Self::scheme);
        let places: Vec<_> = addresses.iter().map(|address| address.place.to_string()).collect();
        format!("{scheme}+{topology}://{}", places.join(","))
    }
}

/// The name in a pair of a query, as in `protocol=resp3`.
fn name_of(pair: &str) -> &str {
    pair.split_once('=').map_or(pair, |(name, _)| name)
}

/// The driver's error about a URL, without what it quotes: a part of a query may be a password.
fn without_detail(error: &RedisError) -> String {
    let text = error.to_string();
    let detail = error.detail().and_then(|detail| text.strip_suffix(detail));
    detail.map_or(text.as_str(), |rest| rest.trim_end_matches(": ")).to_owned()
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(Target::Server(address)) => address.fmt(f),
            Self::One(Target::Master(sentinels)) => sentinels.fmt(f),
            Self::Cluster(seeds) => f.write_str(&Address::show(seeds, "cluster")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Some(path) => write!(f, "unix://{}", path.display()),
            None => write!(f, "{}://{}", self.scheme(), self.place),
        }
    }
}
