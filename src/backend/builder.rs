//! The settings of a backend, and how they are checked. Nothing connects here.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::memory::Memory;
use super::redis::{Redis, Servers, Tls};
use super::url::Url;
use super::{AnyStore, Backend, Inner, check_runtime};
use crate::defaults;
use crate::error::Error;
use crate::near::check_bound;

/// The settings of a [`Backend`], begun with [`Backend::builder`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use cache_aside::Backend;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cache_aside::Error> {
/// let backend = Backend::builder("memory://")
///     .operation_timeout(Duration::from_millis(100))
///     .max_entries(10_000)
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "it does nothing until `connect` or `connect_lazy`"]
#[derive(Clone)]
pub struct BackendBuilder {
    url: String,
    pub(super) settings: Settings,
    tls: Tls,
}

/// The checked settings of a backend. Some matter to one of the stores alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) operation_timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) update_connections: usize,
    pub(super) max_entries: usize,
    pub(super) breaker_threshold: u32,
    pub(super) breaker_pause: Duration,
    pub(super) max_pending_invalidations: usize,
    pub(super) close_timeout: Duration,
    pub(super) heartbeat_interval: Duration,
    pub(super) heartbeat_timeout: Duration,
}

impl BackendBuilder {
    pub(super) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            settings: Settings {
                operation_timeout: defaults::OPERATION_TIMEOUT,
                connect_timeout: defaults::CONNECT_TIMEOUT,
                update_connections: defaults::UPDATE_CONNECTIONS,
                max_entries: defaults::MAX_ENTRIES,
                breaker_threshold: defaults::BREAKER_THRESHOLD,
                breaker_pause: defaults::BREAKER_PAUSE,
                max_pending_invalidations: defaults::MAX_PENDING_INVALIDATIONS,
                close_timeout: defaults::CLOSE_TIMEOUT,
                heartbeat_interval: defaults::HEARTBEAT_INTERVAL,
                heartbeat_timeout: defaults::HEARTBEAT_TIMEOUT,
            },
            tls: Tls::default(),
        }
    }

    /// How long a server may take to answer a step. The time runs from when the step's command goes out, or while there is no
    /// connection; how busy this process is doesn't count. Default:
    /// [`defaults::OPERATION_TIMEOUT`](crate::defaults::OPERATION_TIMEOUT).
    pub fn operation_timeout(mut self, operation_timeout: Duration) -> Self {
        self.settings.operation_timeout = operation_timeout;
        self
    }

    /// The limit of [`connect`](Self::connect), and of each later attempt to connect: names, TLS and the greeting included.
    /// Default:
    /// [`defaults::CONNECT_TIMEOUT`](crate::defaults::CONNECT_TIMEOUT).
    pub fn connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.settings.connect_timeout = connect_timeout;
        self
    }

    /// The most connections for updates to each server, beside the one that all other steps share: each update that is under
    /// way needs one of its own. Redis only. Default: [`defaults::UPDATE_CONNECTIONS`](crate::defaults::UPDATE_CONNECTIONS).
    pub fn update_connections(mut self, update_connections: usize) -> Self {
        self.settings.update_connections = update_connections;
        self
    }

    /// The most entries that are kept. Beyond that, the least recently read ones are dropped. `memory://` only: a Redis server
    /// has its own `maxmemory`. Default: [`defaults::MAX_ENTRIES`](crate::defaults::MAX_ENTRIES).
    pub fn max_entries(mut self, max_entries: usize) -> Self {
        self.settings.max_entries = max_entries;
        self
    }

    /// The number of steps in a row without an answer that opens the circuit breaker: reads then go around the server at once,
    /// without waiting for `operation_timeout`. In a cluster each server has a breaker. A refusal is an answer. Default:
    /// [`defaults::BREAKER_THRESHOLD`](crate::defaults::BREAKER_THRESHOLD).
    pub fn breaker_threshold(mut self, breaker_threshold: u32) -> Self {
        self.settings.breaker_threshold = breaker_threshold;
        self
    }

    /// How long an open breaker waits before it asks the server again, at most: a random time between 50 and 100 % of it.
    /// Default: [`defaults::BREAKER_PAUSE`](crate::defaults::BREAKER_PAUSE).
    pub fn breaker_pause(mut self, breaker_pause: Duration) -> Self {
        self.settings.breaker_pause = breaker_pause;
        self
    }

    /// How many failed invalidations and updates are remembered by their key, until they have been applied. If there are more,
    /// all entries of the type are read around the cache, and deleted from it once it answers again. Default:
    /// [`defaults::MAX_PENDING_INVALIDATIONS`](crate::defaults::MAX_PENDING_INVALIDATIONS).
    pub fn max_pending_invalidations(mut self, max_pending_invalidations: usize) -> Self {
        self.settings.max_pending_invalidations = max_pending_invalidations;
        self
    }

    /// How often a heartbeat is sent over the connection that brings [near caches](crate::NearCache) the servers' invalidation
    /// messages. When that connection breaks without a trace, a near cache may miss the writes of others for at most this time
    /// and `heartbeat_timeout` together. It must be more than 10 ms, on Windows 16. Default:
    /// [`defaults::HEARTBEAT_INTERVAL`](crate::defaults::HEARTBEAT_INTERVAL).
    pub fn heartbeat_interval(mut self, heartbeat_interval: Duration) -> Self {
        self.settings.heartbeat_interval = heartbeat_interval;
        self
    }

    /// How long the answer to a heartbeat may take. Then the connection is given up, and near caches are emptied. It must be
    /// more than 10 ms, on Windows 16. Default:
    /// [`defaults::HEARTBEAT_TIMEOUT`](crate::defaults::HEARTBEAT_TIMEOUT).
    pub fn heartbeat_timeout(mut self, heartbeat_timeout: Duration) -> Self {
        self.settings.heartbeat_timeout = heartbeat_timeout;
        self
    }

    /// The limit of [`Backend::close`]. Default: [`defaults::CLOSE_TIMEOUT`](crate::defaults::CLOSE_TIMEOUT).
    pub fn close_timeout(mut self, close_timeout: Duration) -> Self {
        self.settings.close_timeout = close_timeout;
        self
    }

    /// The certificates of the authorities that may have issued a `rediss://` server's certificate, as PEM text. Default: the
    /// public authorities, from the crate `webpki-roots`.
    #[cfg(feature = "tls")]
    pub fn tls_root_certificates(mut self, root_certificates: impl Into<Vec<u8>>) -> Self {
        self.tls.root_certificates = Some(root_certificates.into());
        self
    }

    /// The certificate of this client, with the intermediate ones, and its unencrypted private key, for `rediss://` servers
    /// that ask for one: both as PEM text. The key is never logged. Default: none.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use cache_aside::{Backend, BoxError};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// let backend = Backend::builder("rediss://billing-service:PASSWORD@cache.internal:6379")
    ///     .tls_root_certificates(std::fs::read("ca.pem")?)
    ///     .tls_client_certificate(std::fs::read("client.pem")?, std::fs::read("client.key")?)
    ///     .connect()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tls")]
    pub fn tls_client_certificate(mut self, client_certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.tls.client_certificate = Some((client_certificate.into(), key.into()));
        self
    }

    /// Connects, and checks that the backend answers.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a URL or a setting that makes no sense; [`Error::Backend`] or [`Error::Timeout`] when
    /// nothing answers within `connect_timeout`, or it wants a password.
    pub async fn connect(self) -> Result<Backend, Error> {
        let limit = self.settings.connect_timeout;
        let backend = self.connect_lazy()?;
        backend.ping(None, limit).await?;
        Ok(backend)
    }

    /// Checks the settings, and leaves it to the first step to connect. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a URL or a setting that makes no sense, or outside of a tokio runtime.
    pub fn connect_lazy(self) -> Result<Backend, Error> {
        check_runtime()?;
        let settings = self.settings;
        defaults::check_duration("operation_timeout", settings.operation_timeout)?;
        defaults::check_duration("connect_timeout", settings.connect_timeout)?;
        defaults::check_duration("breaker_pause", settings.breaker_pause)?;
        defaults::check_duration("close_timeout", settings.close_timeout)?;
        check_bound("heartbeat_interval", settings.heartbeat_interval)?;
        check_bound("heartbeat_timeout", settings.heartbeat_timeout)?;
        at_least_one("breaker_threshold", settings.breaker_threshold as usize)?;
        let max_entries = at_least_one("max_entries", settings.max_entries)?;
        at_least_one("update_connections", settings.update_connections)?;
        let url = Url::new(&self.url);
        url.check_scheme()?;
        let tls = self.tls.connector(url.scheme).map_err(Error::config)?;
        let (store, address) = if url.scheme == "memory" {
            (AnyStore::Memory(Arc::new(Memory::new(max_entries))), "memory://".to_owned())
        } else {
            let servers = Servers::named_by(&url, tls.as_ref())?;
            let address = servers.to_string();
            (AnyStore::Redis(Arc::new(Redis::new(servers, settings))), address)
        };
        Ok(Backend { inner: Arc::new(Inner::new(store, address, settings)) })
    }
}

impl std::fmt::Debug for BackendBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackendBuilder")
            .field("url", &Url::new(&self.url).to_string())
            .field("settings", &self.settings)
            .field("tls", &self.tls)
            .finish()
    }
}

fn at_least_one(setting: &str, count: usize) -> Result<NonZeroUsize, Error> {
    NonZeroUsize::new(count).ok_or_else(|| Error::config(format!("{setting} is 0: it must be at least 1")))
}
