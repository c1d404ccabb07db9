//! Parses the cache's URL: which servers it names, where they are, and which user to connect as.
//!
//! A URL is taken apart here and nowhere else. What the driver has to parse is put together again for each server.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use redis::{ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, RedisError};

use super::sentinel::Sentinels;
use super::shared::Target;
use super::tls::Connector;
use super::topology::Place;
use crate::error::Error;

/// The parts of a URL. Its `Display` leaves out whatever could hold a user, a password or a query.
pub(in crate::backend) struct Url<'a> {
    pub(in crate::backend) text: &'a str,
    /// Empty if there is none.
    pub(in crate::backend) scheme: &'a str,
    /// With the `@` after it, if there is one.
    pub(super) user: &'a str,
    pub(super) hosts: &'a str,
    /// Path, query and fragment.
    pub(super) settings: &'a str,
}

/// The servers that a URL names. Its `Display` is their places alone.
pub(in crate::backend) enum Servers {
    One(Target),
    /// Some of a cluster.
    Cluster(Vec<Address>),
}

/// Where a server is, and as whom to talk to it. Its `Display` is the place alone.
#[derive(Clone)]
pub(in crate::backend) struct Address {
    /// Empty for a Unix socket.
    pub(super) place: Place,
    pub(super) socket: Option<PathBuf>,
    pub(super) settings: RedisConnectionInfo,
    pub(super) tls: Option<Connector>,
    /// Whether the server may be a replica: in a cluster any one may be asked, and sends elsewhere what it doesn't have.
    pub(super) may_be_replica: bool,
}

impl<'a> Url<'a> {
    pub(in crate::backend) fn new(text: &'a str) -> Self {
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let (authority, settings) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        Self { text, scheme, user, hosts, settings }
    }

    /// The servers that the URL names. Its scheme must be known. With `tls`, connections to them are encrypted.
    pub(in crate::backend) fn servers(&self, tls: Option<&Connector>) -> Result<Servers, Error> {
        // If a password has a `/`, `?` or `#` that is not encoded, the part before it would be taken for the host, and be shown.
        if self.scheme != "unix" && self.settings.contains('@') {
            return Err(self.mistake(
                "an `@` comes after the host; in users and passwords write `/`, `?`, `#`, `@` as %2F, %3F, %23, %40",
            ));
        }
        let seed = |host| {
            let address = self.address(self.user, host, self.settings, tls)?;
            if address.settings.db() != 0 {
                return Err(self.mistake("a cluster has the database 0 alone"));
            }
            Ok(Address { may_be_replica: true, ..address })
        };
        Ok(match self.scheme.split_once('+') {
            Some((_, "cluster")) => Servers::Cluster(self.hosts.split(',').map(seed).collect::<Result<_, _>>()?),
            Some(_) => Servers::One(Target::Master(Arc::new(Sentinels::parse(self, tls)?))),
            None => {
                let address = self.address(self.user, self.hosts, self.settings, tls)?;
                Servers::One(Target::Server(Arc::new(address)))
            }
        })
    }

    /// The address of one server, from parts of this URL or others in their place.
    pub(super) fn address(
        &self,
        user: &str,
        host: &str,
        settings: &str,
        tls: Option<&Connector>,
    ) -> Result<Address, Error> {
        let scheme = self.scheme.split_once('+').map_or(self.scheme, |(scheme, _)| scheme);
        // The driver knows one fragment, `#insecure`: any server would be trusted, with the password too.
        if scheme == "rediss" && settings.contains('#') {
            return Err(self.mistake("nothing may follow a `#`; to trust a CA of your own, set tls_root_certificates"));
        }
        let info = format!("{scheme}://{user}{host}{settings}").into_connection_info();
        let info = info.map_err(|error| self.mistake(&without_detail(&error)))?;
        let (place, socket) = match info.addr().clone() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => (Place { host, port }, None),
            ConnectionAddr::Unix(path) => (Place::default(), Some(path)),
            _ => return Err(self.mistake("this kind of address can't be connected to")),
        };
        if let Some(tls) = tls {
            tls.check_name(&place.host).map_err(Error::config)?;
        }
        // Trackers need RESP3. A `protocol` in the URL is the user's choice, as for servers that know only RESP2.
        let has_protocol = settings.rsplit_once('?').is_some_and(|(_, query)| query.contains("protocol="));
        let mut settings = info.redis_settings().clone();
        if !has_protocol {
            settings = settings.set_protocol(ProtocolVersion::RESP3);
        }
        Ok(Address { place, socket, settings, tls: tls.cloned(), may_be_replica: false })
    }

    pub(super) fn mistake(&self, mistake: &str) -> Error {
        Error::config(format!(
            "the cache URL `{self}` makes no sense: {mistake}; write redis[s]://host:6379/0, unix:///path, \
             redis[s]+cluster://host:6379,host:6379 or redis[s]+sentinel://host:26379,host:26379/name"
        ))
    }
}

impl Address {
    /// The same at another place.
    pub(super) fn at(&self, place: Place) -> Self {
        Self { place, ..self.clone() }
    }

    fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "rediss" } else { "redis" }
    }

    /// Shows several, as a URL names them.
    pub(super) fn show(addresses: &[Self], topology: &str) -> String {
        let scheme = addresses.first().map_or("redis", Self::scheme);
        let places: Vec<_> = addresses.iter().map(|address| address.place.to_string()).collect();
        format!("{scheme}+{topology}://{}", places.join(","))
    }
}

/// What the driver says about a URL, without what it quotes: a part of a query may be a password.
fn without_detail(error: &RedisError) -> String {
    let text = error.to_string();
    let detail = error.detail().and_then(|detail| text.strip_suffix(detail));
    detail.map_or(text.as_str(), |rest| rest.trim_end_matches(": ")).to_owned()
}

impl fmt::Display for Url<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without an `@`, what should be a port may be a password.
        let ends_in_port =
            |host: &str| host.rsplit_once(':').is_none_or(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
        let (hosts, text) = (self.hosts, self.text);
        if ends_in_port(hosts) && hosts.split(',').all(ends_in_port) && !text.contains(['@', '?', '#']) {
            return f.write_str(text);
        }
        // A `://` may also come later, in a URL without a scheme: then the text before it is no scheme, and may be secret.
        let is_scheme = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        match text.split_once("://") {
            Some((scheme, _)) if is_scheme(scheme) => write!(f, "{scheme}://.."),
            _ => f.write_str(".."),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::Url;

    #[test]
    fn shows_no_secret() {
        for url in [
            "redis://u:secret@host",
            "redis://:se@cret@host:1",
            "secret@host",
            "unix:///p?pass=secret",
            "x://a#secret",
            "u:secret@host?next=x://y",
            "redis://user:secret",
            "redis://:secret/1",
            "user:secret",
            "redis+cluster://user:secret,host:6379",
            "redis+sentinel://user:secret,host:26379/mymaster",
            "redis+sentinel://host/mymaster?sentinel_password=secret",
        ] {
            let shown = Url::new(url).to_string();
            assert!(!shown.contains("secret") && !shown.contains("cret"), "{shown}");
        }
        for url in ["redis://host:99999", "redis+sentinel://host:1,host:2/mymaster"] {
            assert_eq!(Url::new(url).to_string(), url);
        }
    }
}
