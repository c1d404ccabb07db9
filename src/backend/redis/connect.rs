//! Connections to one server: what the URL says, and the settings that the driver needs.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisError, RedisResult};

use super::Redis;
use super::update::Updates;

const KEEPALIVE: Duration = Duration::from_secs(10);

/// Where a server is, and as whom to talk to it. Its `Display` is the place alone.
pub(in crate::backend) struct Address(ConnectionInfo);

impl Address {
    pub(in crate::backend) fn parse(url: &str) -> Result<Self, String> {
        let mut info = url.into_connection_info().map_err(|error| error.to_string())?;
        let mut settings = info.redis_settings().clone();
        // With RESP3 the driver notices a cut connection while it is idle. A `protocol` in the URL is the user's choice.
        if !url.contains("protocol=") {
            settings = settings.set_protocol(ProtocolVersion::RESP3);
        }
        // Nagle's algorithm would hold back small pipelines; keepalive finds out peers that vanished.
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
        info = info.set_redis_settings(settings).set_tcp_settings(tcp);
        Ok(Self(info))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.addr() {
            ConnectionAddr::Unix(path) => write!(f, "unix://{}", path.display()),
            address => write!(f, "redis://{address}"),
        }
    }
}

impl Redis {
    /// Prepares the connections; none is made yet.
    pub(in crate::backend) fn new(
        address: Address,
        operation_timeout: Duration,
        connect_timeout: Duration,
        update_connections: NonZeroUsize,
    ) -> Result<Self, String> {
        let client = Client::open(address.0).map_err(|error| error.to_string())?;
        let shared = Shared::new(client.clone(), connect_timeout).map_err(|error| error.to_string())?;
        let updates = Updates::new(client, operation_timeout, connect_timeout, update_connections)?;
        Ok(Self { shared, updates })
    }
}

/// The one connection that all steps but updates share.
///
/// The driver's manager connects again after I/O errors. But when a server answers and refuses the connection (a wrong
/// password, too many clients), it keeps that answer for ever; and a primary that has become a replica goes on answering.
/// So an error that may mean this replaces the manager.
pub(super) struct Shared {
    client: Client,
    config: ConnectionManagerConfig,
    current: RwLock<Current>,
}

struct Current {
    manager: ConnectionManager,
    since: Instant,
}

impl Shared {
    fn new(client: Client, connect_timeout: Duration) -> RedisResult<Self> {
        // Every caller has a deadline of its own, so a failed attempt is reported at once and the next call tries again.
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(20))
            .set_max_delay(Duration::from_millis(50))
            .set_connection_timeout(Some(connect_timeout))
            .set_response_timeout(None);
        let manager = ConnectionManager::new_lazy_with_config(client.clone(), config.clone())?;
        Ok(Self { client, config, current: RwLock::new(Current { manager, since: Instant::now() }) })
    }

    pub(super) fn connection(&self) -> ConnectionManager {
        self.current.read().unwrap_or_else(PoisonError::into_inner).manager.clone()
    }

    /// Replaces the connection after an error that a new one may not have.
    pub(super) fn check(&self, error: &RedisError) {
        const OLD_ENOUGH: Duration = Duration::from_millis(500);
        let is_about_the_data = matches!(error.code(), Some("WRONGTYPE" | "NOSCRIPT" | "OOM"));
        if error.is_io_error() || is_about_the_data {
            return;
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.since.elapsed() < OLD_ENOUGH {
            return;
        }
        if let Ok(manager) = ConnectionManager::new_lazy_with_config(self.client.clone(), self.config.clone()) {
            *current = Current { manager, since: Instant::now() };
        }
    }
}
