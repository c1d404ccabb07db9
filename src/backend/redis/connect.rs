//! Connections to one server: what the URL says, and the settings that the driver needs.

use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{
    Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, Pipeline, ProtocolVersion, PushInfo,
    PushKind, RedisError, RedisFuture, RedisResult, Value,
};

use super::errors::is_too_many_clients;
use super::node::Limits;
use super::sentinel::Master;
use super::tls::Connector;

pub(super) const KEEPALIVE: Duration = Duration::from_secs(10);

/// Where a server is, and as whom to talk to it. Its `Display` is the place alone.
#[derive(Clone)]
pub(in crate::backend) struct Address {
    pub(super) info: ConnectionInfo,
    /// For the connections that the driver does not make.
    pub(super) tls: Option<Connector>,
}

impl Address {
    pub(in crate::backend) fn parse(url: &str) -> Result<Self, String> {
        check_userinfo(url)?;
        check_fragment(url)?;
        let mut info = url.into_connection_info().map_err(|error| without_detail(&error))?;
        let mut settings = info.redis_settings().clone();
        // With RESP3 the driver notices a cut connection while it is idle. A `protocol` in the URL is the user's choice.
        let query = url.rsplit_once('?').map_or("", |(_, query)| query);
        if !query.contains("protocol=") {
            settings = settings.set_protocol(ProtocolVersion::RESP3);
        }
        // Nagle's algorithm would hold back small pipelines; keepalive finds out peers that vanished.
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
        info = info.set_redis_settings(settings).set_tcp_settings(tcp);
        Ok(Self { info, tls: None })
    }

    /// The host and the port; nothing for a Unix socket.
    pub(super) fn place(&self) -> (&str, u16) {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => (host, *port),
            _ => ("", 0),
        }
    }
}

#[cfg(feature = "cluster")]
impl Address {
    /// Reads a URL such as `redis+cluster://user:password@host:6379,host:6380`: one address for each host.
    pub(in crate::backend) fn parse_cluster(url: &str) -> Result<Vec<Self>, String> {
        let (scheme, rest) = url.split_once("+cluster://").ok_or("it is no URL of a cluster")?;
        check_userinfo(&format!("{scheme}://{rest}"))?;
        let (servers, settings) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (user, hosts) = servers.rsplit_once('@').map_or(("", servers), |(user, hosts)| (user, hosts));
        let at = if servers.contains('@') { "@" } else { "" };
        let address = |host: &str| {
            let address = Self::parse(&format!("{scheme}://{user}{at}{host}{settings}"))?;
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
        Self { info: self.info.clone().set_addr(place), tls: self.tls.clone() }
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

/// The one connection that all steps but reads and updates share.
pub(super) enum Shared {
    /// To the server that the URL names.
    Server(Box<Reconnecting>),
    /// To the master that the sentinels name.
    Master(Arc<Master>),
}

impl Shared {
    pub(super) async fn connection(&self) -> RedisResult<Connection> {
        match self {
            Self::Server(server) => Ok(server.connection()),
            Self::Master(master) => {
                let (connection, number) = master.connection().boxed().await?;
                Ok(Connection { link: Link::Plain(connection), number })
            }
        }
    }

    /// Looks at how a step over `connection` ended, and replaces that after an error that a new one may not have.
    pub(super) fn check(&self, connection: &Connection, error: Option<&RedisError>) {
        match self {
            Self::Server(server) => server.check(connection, error),
            Self::Master(master) => master.check(connection.number, error),
        }
    }

    /// After a step that went over another connection and failed.
    pub(super) fn look_again(&self) {
        if let Self::Master(master) = self {
            master.look_again();
        }
    }

    /// Where the connection goes, for another one beside it.
    pub(super) async fn whereabouts(&self) -> RedisResult<(Address, Beside)> {
        match self {
            Self::Server(server) => {
                let beside = self.beside();
                Ok((server.address.clone(), beside))
            }
            Self::Master(master) => master.whereabouts().boxed().await,
        }
    }

    pub(super) fn beside(&self) -> Beside {
        Beside::now(self.generation())
    }

    /// Says that a connection beside this one was lost.
    pub(super) fn lost(&self, beside: &Beside) {
        match self {
            _ if !beside.is_current() => {}
            Self::Server(server) => server.lost(),
            Self::Master(master) => master.lost_beside(beside),
        }
    }

    /// Counts how often the connection was lost.
    pub(super) fn losses(&self) -> Arc<AtomicU64> {
        self.generation().lost
    }

    fn generation(&self) -> Generation {
        match self {
            Self::Server(server) => server.generation(),
            Self::Master(master) => master.generation(),
        }
    }

    /// Counts a step that got no answer within `limit`.
    pub(super) fn timed_out(&self, limit: Duration) {
        match self {
            Self::Server(server) => server.timed_out(limit),
            Self::Master(master) => master.timed_out(limit),
        }
    }
}

/// A connection to send a step over.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) link: Link,
    pub(super) number: u64,
}

#[derive(Clone)]
pub(super) enum Link {
    /// It connects again by itself.
    Managed(ConnectionManager),
    /// It doesn't: whether the same server is still the right one is to be found out first.
    Plain(MultiplexedConnection),
}

impl Link {
    /// Sends all at once; a reply may be a server's error.
    pub(super) fn send<'a>(&'a mut self, commands: &'a Pipeline) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Managed(manager) => manager.req_packed_commands(commands, 0, commands.len()),
            Self::Plain(connection) => connection.req_packed_commands(commands, 0, commands.len()),
        }
    }
}

/// A connection to one server, whatever becomes of it.
///
/// The driver's manager connects again after I/O errors. But when a server answers and refuses the connection (a wrong
/// password, too many clients), it keeps that answer for ever; a primary that has become a replica goes on answering; and
/// a connection that was lost without a trace never fails. So whatever may mean this replaces the manager.
pub(super) struct Reconnecting {
    address: Address,
    client: Client,
    connect_timeout: Duration,
    /// From so many steps in a row without an answer on, a connection is silent: as many as open the breaker, which then
    /// lets few steps through to find that out.
    most_unanswered: u32,
    current: RwLock<Current>,
    /// Steps without an answer since the last one that had one.
    unanswered: AtomicU32,
    /// The number of the connection that was the last to answer; none while it may be on its way again.
    answered: AtomicU64,
    generation: Generation,
}

/// Counts the shared connections that were lost: what was connected before may be connected to another server.
#[derive(Clone, Default)]
pub(super) struct Generation {
    lost: Arc<AtomicU64>,
    /// In a cluster, those of all servers.
    of_all: Option<Arc<AtomicU64>>,
}

impl Generation {
    #[cfg(feature = "cluster")]
    pub(super) fn of_server(of_all: Arc<AtomicU64>) -> Self {
        Self { lost: Arc::default(), of_all: Some(of_all) }
    }

    pub(super) fn now(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(super) fn advance(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        if let Some(of_all) = &self.of_all {
            of_all.fetch_add(1, Ordering::Release);
        }
    }
}

/// The shared connection that another one was made beside.
#[derive(Clone)]
pub(super) struct Beside {
    generation: Generation,
    was: u64,
}

impl Beside {
    pub(super) fn now(generation: Generation) -> Self {
        let was = generation.now();
        Self { generation, was }
    }

    /// Whether the shared connection is still the same.
    pub(super) fn is_current(&self) -> bool {
        self.generation.now() == self.was
    }
}

struct Current {
    connection: Connection,
    since: Instant,
}

/// Why a connection is given up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// The server answered, and refused.
    Refused,
    /// It answers no more.
    Silent,
}

const NO_CONNECTION: u64 = 0;

impl Reconnecting {
    pub(super) fn new(address: Address, generation: Generation, limits: Limits) -> RedisResult<Self> {
        let connect_timeout = limits.connect_timeout;
        let client = Client::open(address.info.clone())?;
        let manager = manager(&client, connect_timeout, &generation)?;
        let connection = Connection { link: Link::Managed(manager), number: NO_CONNECTION + 1 };
        Ok(Self {
            address,
            client,
            connect_timeout,
            most_unanswered: limits.breaker_threshold,
            current: RwLock::new(Current { connection, since: Instant::now() }),
            unanswered: AtomicU32::new(0),
            answered: AtomicU64::new(NO_CONNECTION),
            generation,
        })
    }

    /// To be asked how often the connection was lost.
    pub(super) fn generation(&self) -> Generation {
        self.generation.clone()
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    fn connection(&self) -> Connection {
        self.current.read().unwrap_or_else(PoisonError::into_inner).connection.clone()
    }

    fn check(&self, connection: &Connection, error: Option<&RedisError>) {
        self.unanswered.store(0, Ordering::Relaxed);
        match error {
            None => self.answered.store(connection.number, Ordering::Relaxed),
            Some(error) if error.is_io_error() => {
                self.answered.store(NO_CONNECTION, Ordering::Relaxed);
                self.generation.advance();
            }
            Some(error) if may_be_about_the_connection(error) => self.replace(connection.number, Lost::Refused),
            Some(_) => {}
        }
    }

    fn timed_out(&self, limit: Duration) {
        let number = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            // What began before this connection was made went over another.
            if current.since.elapsed() < limit {
                return;
            }
            current.connection.number
        };
        if self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 >= self.most_unanswered {
            self.replace(number, Lost::Silent);
        }
    }

    /// After a connection beside this one was lost.
    fn lost(&self) {
        let number = self.connection().number;
        self.generation.advance();
        self.replace(number, Lost::Silent);
    }

    fn replace(&self, number: u64, lost: Lost) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.connection.number != number {
            return;
        }
        // One that has never answered may be on its way, and a server that refuses is not asked again at once.
        let at_once = lost == Lost::Silent && self.answered.load(Ordering::Relaxed) == number;
        if !at_once && current.since.elapsed() < self.connect_timeout {
            return;
        }
        if let Ok(manager) = manager(&self.client, self.connect_timeout, &self.generation) {
            let connection = Connection { link: Link::Managed(manager), number: number + 1 };
            *current = Current { connection, since: Instant::now() };
            self.unanswered.store(0, Ordering::Relaxed);
            self.generation.advance();
        }
    }
}

fn manager(client: &Client, connect_timeout: Duration, generation: &Generation) -> RedisResult<ConnectionManager> {
    // Every caller has a deadline of its own, so a failed attempt is reported at once and the next call tries again.
    let mut config = ConnectionManagerConfig::new()
        .set_number_of_retries(1)
        .set_min_delay(Duration::from_millis(20))
        .set_max_delay(Duration::from_millis(50))
        .set_connection_timeout(Some(connect_timeout))
        .set_response_timeout(None);
    if client.get_connection_info().redis_settings().protocol() == ProtocolVersion::RESP3 {
        let generation = generation.clone();
        config = config.set_push_sender(move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                generation.advance();
            }
            Ok::<_, Infallible>(())
        });
    }
    ConnectionManager::new_lazy_with_config(client.clone(), config)
}

fn may_be_about_the_connection(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "READONLY" | "MASTERDOWN"))
        || is_too_many_clients(error)
}
