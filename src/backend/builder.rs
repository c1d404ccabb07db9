//! The settings of a backend, and how they are checked. Nothing connects here.

use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::call::{CallOptions, WhenOpen, call};
use super::credentials::{Credentials, Provider};
use super::deadline::within;
use super::memory::Memory;
use super::pending::is_forbidden;
use super::redis::{ConnectOptions, MapAddress, Redis, Replicas, Servers, Tls};
use super::url::Url;
use super::{AnyStore, Backend, Inner, check_runtime};
use crate::defaults;
use crate::error::{BoxError, Error};
use crate::near::check_bound;
use crate::record::check_key_prefix;

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
    key_prefix: Option<String>,
    pub(super) settings: Settings,
    tls: Tls,
    credentials: Option<Provider>,
    client_name: String,
    map_address: Option<Arc<MapAddress>>,
}

/// Declares the settings: each with the builder's method that sets it, and its default with the text of its value, which the
/// method's documentation shows.
macro_rules! settings {
    ($($(#[$doc:meta])* $setting:ident: $type:ty = $default:ident, $value:literal;)*) => {
        /// The checked settings of a backend. Some matter to one of the stores alone.
        #[derive(Debug, Clone, Copy)]
        pub(super) struct Settings {
            $(pub(super) $setting: $type,)*
            pub(super) acknowledged_by: Option<Replicas>,
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($setting: defaults::$default,)* acknowledged_by: None }
            }
        }

        impl BackendBuilder {
            $(
                $(#[$doc])*
                #[doc = concat!(
                    "Default: [`defaults::", stringify!($default), "`](crate::defaults::", stringify!($default), "), ", $value, "."
                )]
                pub fn $setting(mut self, $setting: $type) -> Self {
                    self.settings.$setting = $setting;
                    self
                }
            )*
        }

        #[cfg(test)]
        #[test]
        fn the_documented_defaults_are_the_values() {
            $(assert_eq!(format!("{:?}", defaults::$default), $value.replace([' ', ','], ""));)*
        }
    };
}

settings! {
    /// How long a server may take to answer a step, from 1 ms to 36,500 days. The time runs from when the step's command goes
    /// out, or while there is no connection; how busy this process is doesn't count.
    operation_timeout: Duration = OPERATION_TIMEOUT, "250 ms";

    /// The limit of [`connect`](Self::connect), and of each later attempt to connect: names, TLS and the greeting included. From
    /// 1 ms to 36,500 days.
    connect_timeout: Duration = CONNECT_TIMEOUT, "2 s";

    /// The most connections for updates to each server, beside the one that all other steps share: each update that is under
    /// way needs one of its own. So does each fill on a server without scripts, and each invalidation with
    /// [`acknowledged_by`](Self::acknowledged_by). At least 1. Redis only.
    update_connections: usize = UPDATE_CONNECTIONS, "8";

    /// The most entries that are kept, at least 1. Beyond that, the least recently read ones are dropped. `memory://` only: a
    /// Redis server has its own `maxmemory`.
    max_entries: usize = MAX_ENTRIES, "100,000";

    /// The number of steps in a row without an answer that opens the circuit breaker, at least 1: reads then go around the server
    /// at once, without waiting for `operation_timeout`. In a cluster each server has a breaker. A refusal is an answer.
    breaker_threshold: u32 = BREAKER_THRESHOLD, "5";

    /// How long an open breaker waits before it asks the server again, at most: a random time between 50 and 100 % of it. From
    /// 1 ms to 36,500 days.
    breaker_pause: Duration = BREAKER_PAUSE, "500 ms";

    /// How many failed invalidations and updates are remembered by their key, until they have been applied. If there are more,
    /// all entries of the type are read around the cache, and deleted from it once it answers again. 0 is allowed.
    max_pending_invalidations: usize = MAX_PENDING_INVALIDATIONS, "10,000";

    /// How long this process remembers the keys that it has invalidated or updated, for servers that are replaced: when a replica
    /// is promoted, or a server starts again, they are invalidated once more, since the new server may not have seen it. At most
    /// `max_pending_invalidations` keys are remembered, and beyond that their types. From 1 ms to 36,500 days, or zero, which turns
    /// that off, but not the sweep after a server has started again with old data. Redis only.
    replay_window: Duration = REPLAY_WINDOW, "10 s";

    /// How often a heartbeat is sent over the connection that brings [near caches](crate::NearCache) the servers' invalidation
    /// messages. When that connection breaks without a trace, a near cache may miss the writes of others for at most this time
    /// and `heartbeat_timeout` together. More than 10 ms (on Windows 16 ms), and at most 36,500 days.
    heartbeat_interval: Duration = HEARTBEAT_INTERVAL, "1 s";

    /// How long the answer to a heartbeat may take. Then the connection is given up, and near caches are emptied. More than 10 ms
    /// (on Windows 16 ms), and at most 36,500 days.
    heartbeat_timeout: Duration = HEARTBEAT_TIMEOUT, "500 ms";

    /// The limit of [`Backend::close`], from 1 ms to 36,500 days.
    close_timeout: Duration = CLOSE_TIMEOUT, "5 s";
}

impl BackendBuilder {
    pub(super) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            key_prefix: None,
            settings: Settings::default(),
            tls: Tls::default(),
            credentials: None,
            client_name: defaults::CLIENT_NAME.to_owned(),
            map_address: None,
        }
    }

    /// The prefix of all keys of this backend, so that several users of one server share nothing, and each can be kept to the
    /// keys of its own by the server's ACL: the pattern `~team-a:*` covers all keys with the prefix `team-a:`. One or more letters,
    /// digits, `_`, `.`, `:` and `-`; the part before the last `:` must not end in `cache`. Default: none.
    ///
    /// | | without it | with `key_prefix("team-a:")` |
    /// |---|---|---|
    /// | entry | `cache:billing:product:p-001` | `team-a:cache:billing:product:p-001` |
    /// | lease | `{cache:billing:product:p-001}:lock` | `team-a:lock:{team-a:cache:billing:product:p-001}` |
    ///
    /// Backends with different prefixes, or with one and without, have no key in common, and [`clear`](crate::Cache::clear) of one
    /// leaves the others alone. Processes that share entries need the same prefix: a write under one invalidates nothing under
    /// another.
    ///
    /// # Examples
    ///
    /// ```
    /// # use cache_aside::{Backend, Cache, Cacheable};
    /// # #[derive(Debug, Cacheable)]
    /// # #[cacheable(namespace = "billing")]
    /// # struct Product { #[cacheable(id)] id: String }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), cache_aside::Error> {
    /// let backend = Backend::builder("memory://").key_prefix("team-a:").connect().await?;
    /// let products: Cache<Product> = Cache::new(backend);
    /// assert_eq!(products.inspect("p-001").await?.key, "team-a:cache:billing:product:p-001");
    /// # Ok(())
    /// # }
    /// ```
    pub fn key_prefix(mut self, key_prefix: impl Into<String>) -> Self {
        self.key_prefix = Some(key_prefix.into());
        self
    }

    /// Makes each invalidation and update wait until `replicas` replicas of the key's server have it, for at most `timeout`: it then
    /// survives a failover to one of these. At least 1 replica; from 1 ms to 36,500 days. Default: not set, and a write counts once
    /// the primary has it.
    ///
    /// If fewer replicas have it in time, the call is an [`Error::Backend`], and its key is [pending](crate::Cache::pending):
    /// this process reads around the cache for it, and tries again. The server may take `operation_timeout` and `timeout`
    /// together, and beyond `update_connections` at a time, calls wait for a connection. Choose a `timeout` below the `update_timeout`
    /// of caches that update. [`Cache::clear`](crate::Cache::clear) doesn't
    /// wait. Redis only: `memory://` ignores it.
    ///
    /// Redis: `WAIT`, over one of the `update_connections`.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use cache_aside::{Backend, BoxError};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// let backend = Backend::builder("redis://cache.internal:6379")
    ///     .acknowledged_by(1, Duration::from_millis(100))
    ///     .connect()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn acknowledged_by(mut self, replicas: u32, timeout: Duration) -> Self {
        self.settings.acknowledged_by = Some(Replicas { count: replicas, timeout });
        self
    }

    /// The user and the password, in place of those in the URL, from an async closure: for tokens and passwords that change, such
    /// as IAM tokens of ElastiCache and MemoryDB, tokens of Entra ID, or secrets in Vault. Redis only. Default: those in the URL.
    ///
    /// The closure is called each time that a connection is made to a server with data, of which there are several for each
    /// server: keep what is expensive to get, and return it again. It has nine tenths of `connect_timeout` to answer. If the server refuses the
    /// answer, the closure is called again, and once more after growing pauses, for a quarter of that time: a password may have been
    /// changed between the two. An error or a panic of the closure fails the attempt to connect, and live connections go on.
    ///
    /// With [`Credentials::valid_for`] it is also called when a fifth of the lifetime is left, and live connections authenticate
    /// anew with the new credentials. Idle connections of updates are closed instead. If that fails, it is tried again after
    /// pauses of up to 5 s.
    ///
    /// Sentinels are not asked for: their user stays in the URL, as `?sentinel_user=..&sentinel_password=..`. The user at the
    /// master comes from the closure.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// use cache_aside::{Backend, BoxError, Credentials};
    ///
    /// # async fn iam_token() -> Result<String, BoxError> { Ok("token".into()) }
    /// # async fn connect() -> Result<Backend, BoxError> {
    /// let backend = Backend::builder("redis://cache.internal:6379")
    ///     .credentials(|| async {
    ///         let token = iam_token().await?;
    ///         Ok::<_, BoxError>(Credentials::new("billing-service", token).valid_for(Duration::from_secs(15 * 60)))
    ///     })
    ///     .connect()
    ///     .await?;
    /// # Ok(backend)
    /// # }
    /// ```
    pub fn credentials<Fut, E>(mut self, provider: impl Fn() -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        self.credentials = Some(Provider::new(provider));
        self
    }

    /// The name of all connections in `CLIENT LIST`: one or more ASCII characters, without spaces. A server that refuses the name
    /// is used without it. Redis only. Default: [`defaults::CLIENT_NAME`](crate::defaults::CLIENT_NAME), `cache-aside`.
    pub fn client_name(mut self, client_name: impl Into<String>) -> Self {
        self.client_name = client_name.into();
        self
    }

    /// Where to connect to for the host and port that a node of a cluster, or a sentinel for its master, announces: for servers
    /// behind NAT, a port forward or a tunnel. The hosts in the URL are connected to as they are. The closure is called at each
    /// attempt to connect, and must not block. Over TLS, the host that it returns has to be in the certificate, unless
    /// `tls_server_name` is set. Errors and metrics have the announced address. Redis only. Default: the announced address.
    ///
    /// # Examples
    ///
    /// ```
    /// # use cache_aside::{Backend, Error};
    /// # async fn connect() -> Result<Backend, Error> {
    /// let backend = Backend::builder("redis+cluster://bastion.internal:7001")
    ///     .map_address(|_host, port| ("bastion.internal".to_owned(), port))
    ///     .connect()
    ///     .await?;
    /// # Ok(backend)
    /// # }
    /// ```
    pub fn map_address(mut self, map: impl Fn(&str, u16) -> (String, u16) + Send + Sync + 'static) -> Self {
        self.map_address = Some(Arc::new(map));
        self
    }

    /// The name that the certificates of all servers must have, sentinels included, in place of the host that is connected to. It
    /// is also the name that servers are asked for (SNI). For servers that are announced by address, with a certificate for a name.
    /// Only with a `rediss` scheme. Default: the host.
    #[cfg(feature = "tls")]
    pub fn tls_server_name(mut self, server_name: impl Into<String>) -> Self {
        self.tls.server_name = Some(server_name.into());
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

    /// Connects, and checks that the backend answers, and that it has the commands that the library needs.
    ///
    /// A server has to have scripts (`EVAL`) or transactions (`WATCH`). Without scripts, transactions take their place. Without
    /// transactions, updates become invalidations.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a URL or a setting that makes no sense; [`Error::Backend`] or [`Error::Timeout`] when
    /// nothing answers within `connect_timeout`, or it wants a password. Also [`Error::Backend`] when the server refuses commands:
    /// its cause lists them all.
    pub async fn connect(self) -> Result<Backend, Error> {
        let limit = self.settings.connect_timeout;
        let backend = self.connect_lazy()?;
        backend.check_within(limit).await?;
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
        if !settings.replay_window.is_zero() {
            defaults::check_duration("replay_window", settings.replay_window)?;
        }
        check_bound("heartbeat_interval", settings.heartbeat_interval)?;
        check_bound("heartbeat_timeout", settings.heartbeat_timeout)?;
        at_least_one("breaker_threshold", settings.breaker_threshold as usize)?;
        let max_entries = at_least_one("max_entries", settings.max_entries)?;
        at_least_one("update_connections", settings.update_connections)?;
        if let Some(Replicas { count, timeout }) = settings.acknowledged_by {
            at_least_one("the number of replicas in acknowledged_by", count as usize)?;
            defaults::check_duration("the timeout of acknowledged_by", timeout)?;
        }
        self.key_prefix.as_deref().map_or(Ok(()), check_key_prefix)?;
        let url = Url::new(&self.url);
        url.check_scheme()?;
        check_client_name(&self.client_name)?;
        let options = ConnectOptions {
            tls: self.tls.connector(url.scheme).map_err(Error::config)?,
            credentials: self.credentials,
            client_name: self.client_name.into(),
            map_address: self.map_address,
        };
        let (store, address) = if url.scheme == "memory" {
            (AnyStore::Memory(Arc::new(Memory::new(max_entries))), "memory://".to_owned())
        } else {
            let servers = Servers::named_by(&url, &options)?;
            let address = servers.to_string();
            (AnyStore::Redis(Arc::new(Redis::new(servers, settings))), address)
        };
        let inner = Inner::new(store, address, self.key_prefix.unwrap_or_default(), settings);
        Ok(Backend { inner: Arc::new(inner) }.watched())
    }
}

impl Backend {
    /// Checks within `limit` that the backend answers, and has the commands that the library needs.
    async fn check_within(&self, limit: Duration) -> Result<(), Error> {
        let began = Instant::now();
        let answered = self.ping_within(None, limit).await;
        let Some(redis) = self.inner.store.redis() else { return answered };
        // A refusal is in the list of all of them.
        if answered.as_ref().is_err_and(|error| !is_forbidden(error)) {
            return answered;
        }
        let limit = limit.saturating_sub(began.elapsed());
        // Without an answer in time nothing is known of the key's server, which in a cluster need not be the one that has answered.
        let check = pin!(async { within(limit, redis.check(self.key_prefix(), limit)).await.unwrap_or(Ok(())) });
        let options = CallOptions { when_open: WhenOpen::Passes, ..CallOptions::for_get(self, None) };
        call(self, &options, || "connect to the cache".to_owned(), check).await?;
        answered
    }
}

impl std::fmt::Debug for BackendBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackendBuilder")
            .field("url", &Url::new(&self.url).to_string())
            .field("key_prefix", &self.key_prefix)
            .field("settings", &self.settings)
            .field("tls", &self.tls)
            .field("credentials", &self.credentials.is_some())
            .field("client_name", &self.client_name)
            .field("map_address", &self.map_address.is_some())
            .finish()
    }
}

fn at_least_one(setting: &str, count: usize) -> Result<NonZeroUsize, Error> {
    NonZeroUsize::new(count).ok_or_else(|| Error::config(format!("{setting} is 0: it must be at least 1")))
}

/// The characters that servers allow.
fn check_client_name(name: &str) -> Result<(), Error> {
    if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(Error::config(format!("client_name is {name:?}: it must be one or more ASCII characters, without spaces")))
}
