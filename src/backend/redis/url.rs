//! What a URL says about a server, or about the servers of a cluster: where it is, and as whom to talk to it.

use std::fmt;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisError};

use super::tls::Connector;

/// Where a server is, and as whom to talk to it. Its `Display` is the place alone.
#[derive(Clone)]
pub(in crate::backend) struct Address {
    pub(super) info: ConnectionInfo,
    pub(super) tls: Option<Connector>,
    /// Whether the server may be a replica: in a cluster any one may be asked, and sends elsewhere what it doesn't have.
    pub(super) may_be_replica: bool,
}

impl Address {
    pub(in crate::backend) fn parse(url: &str) -> Result<Self, String> {
        check_userinfo(url)?;
        check_fragment(url)?;
        let mut info = url.into_connection_info().map_err(|error| without_detail(&error))?;
        // Trackers need RESP3. A `protocol` in the URL is the user's choice, as for servers that know only RESP2.
        let query = url.rsplit_once('?').map_or("", |(_, query)| query);
        if !query.contains("protocol=") {
            let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
            info = info.set_redis_settings(settings);
        }
        Ok(Self { info, tls: None, may_be_replica: false })
    }

    /// The host and the port; nothing for a Unix socket.
    pub(super) fn place(&self) -> (&str, u16) {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => (host, *port),
            _ => ("", 0),
        }
    }
}

impl Address {
    /// Reads a URL such as `redis+cluster://user:password@host:6379,host:6380`: one address for each host.
    pub(in crate::backend) fn parse_cluster(url: &str) -> Result<Vec<Self>, String> {
        let (scheme, rest) = url.split_once("+cluster://").ok_or("it is no URL of a cluster")?;
        check_userinfo(&format!("{scheme}://{rest}"))?;
        let (servers, settings) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (user, hosts) = servers.rsplit_once('@').map_or(("", servers), |(user, hosts)| (user, hosts));
        let at = if servers.contains('@') { "@" } else { "" };
        let address = |host: &str| {
            let mut address = Self::parse(&format!("{scheme}://{user}{at}{host}{settings}"))?;
            address.may_be_replica = true;
            if address.info.redis_settings().db() != 0 {
                return Err("a cluster has the database 0 alone".to_owned());
            }
            Ok(address)
        };
        hosts.split(',').map(address).collect()
    }

    pub(in crate::backend) fn show_cluster(addresses: &[Self]) -> String {
        let scheme = match addresses.first().map(|address| address.info.addr()) {
            Some(ConnectionAddr::TcpTls { .. }) => "rediss",
            _ => "redis",
        };
        let places: Vec<_> = addresses.iter().map(|address| address.info.addr().to_string()).collect();
        format!("{scheme}+cluster://{}", places.join(","))
    }

    /// The same at another place.
    pub(super) fn at(&self, host: &str, port: u16) -> Self {
        let host = host.to_owned();
        let place = match self.info.addr().clone() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure, tls_params }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        Self { info: self.info.clone().set_addr(place), ..self.clone() }
    }
}

/// What stands before a `/`, `?` or `#` in a password would be taken for the host, and be shown.
pub(super) fn check_userinfo(url: &str) -> Result<(), String> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Ok(());
    };
    if scheme == "unix" {
        return Ok(());
    }
    match rest.split_once(['/', '?', '#']) {
        Some((_, after_host)) if after_host.contains('@') => {
            Err("an `@` comes after the host; in users and passwords write `/`, `?`, `#`, `@` as %2F, %3F, %23, %40"
                .to_owned())
        }
        _ => Ok(()),
    }
}

/// The driver knows one fragment, `#insecure`: any server would be trusted, with the password too.
fn check_fragment(url: &str) -> Result<(), String> {
    if url.starts_with("rediss://") && url.contains('#') {
        return Err("nothing may follow a `#`; to trust a CA of your own, set tls_root_certificates".to_owned());
    }
    Ok(())
}

/// What the driver says about a URL, without what it quotes: a part of a query may be a password.
pub(super) fn without_detail(error: &RedisError) -> String {
    let text = error.to_string();
    let detail = error.detail().and_then(|detail| text.strip_suffix(detail));
    detail.map_or(text.as_str(), |rest| rest.trim_end_matches(": ")).to_owned()
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.info.addr() {
            ConnectionAddr::Unix(path) => write!(f, "unix://{}", path.display()),
            address @ ConnectionAddr::TcpTls { .. } => write!(f, "rediss://{address}"),
            address => write!(f, "redis://{address}"),
        }
    }
}
