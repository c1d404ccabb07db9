//! The stores that entries live in, behind one type: [`Backend`].
//!
//! A backend knows keys, tokens, hashes and lifetimes, but nothing of `Cacheable`. This file has its public methods and the
//! steps. `store` has the contract that every store keeps, `call` the circuit breaker and the errors of each step, `batch` and
//! `update` the calls of several steps, `pending` the writes that failed, `memory` and `redis` the two stores.

mod batch;
mod builder;
mod call;
#[cfg(test)]
#[path = "../tests/contract/mod.rs"]
mod contract;
mod credentials;
mod deadline;
mod memory;
mod near;
mod pending;
mod redis;
mod restart;
#[cfg(feature = "__proof")]
mod rig;
mod store;
mod takeover;
mod update;
mod url;

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Semaphore;

pub use self::builder::BackendBuilder;
use self::builder::Settings;
pub(crate) use self::call::check_runtime;
use self::call::{AnyStore, Breaker, CallOptions, WhenOpen, call, dispatch, failed};
pub use self::credentials::Credentials;
use self::pending::{Pending, Sweep, Write, is_forbidden};
#[cfg(feature = "__proof")]
pub use self::rig::{Failpoint, Phase, Rig, Step};
pub(crate) use self::store::{
    Acquired, Attempt, Decision, Each, EntryAndLease, Filled, Forbidden, Held, KeyKind, Mark, MayBeOld, Store,
    StoreError, StoreResult, StoreUpdate, Token, Touched,
};
pub(crate) use self::takeover::TakeoverCount;
use self::takeover::Takeovers;
pub(crate) use self::update::Update;
use crate::background::Background;
use crate::error::{Cause, Error};
use crate::metrics::BackendMetrics;
use crate::near::Tracking;
use crate::proof::Guard;
use crate::record::{Found, Key, Meta, Selection, StoredField};
use crate::repeats::Repeats;

/// A handle on where entries live. Cheap to clone: all clones share the same connections, or the same memory.
///
/// | URL | entries live |
/// |---|---|
/// | `memory://` | in this process: for tests, examples and single processes. Each `connect` makes a store of its own |
/// | `redis://[user][:password@]host[:port][/db]` | on one Redis (7.0 or later) or Valkey (7.2 or later) server |
/// | `rediss://[user][:password@]host[:port][/db]` | the same, over TLS, with the feature `tls` |
/// | `unix:///path/to/redis.sock[?db=1&user=..&pass=..]` | the same, over a Unix socket |
/// | `redis+cluster://[user][:password@]host[:port],host[:port]..` | on the cluster that these servers belong to; `rediss+cluster://` over TLS, with the feature `tls` |
/// | `redis+sentinel://[user][:password@]host[:port],host[:port]/name[/db][?sentinel_user=..&sentinel_password=..]` | on the master of this name by the sentinels at these hosts, port 26379 without one; a failover is followed. User, password and database are the master's. |
/// | `rediss+sentinel://..` | the same, over TLS to the sentinels and to the master, with the feature `tls` |
///
/// # Examples
///
/// ```
/// use cache_aside::Backend;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cache_aside::Error> {
/// let url = std::env::var("CACHE_URL").unwrap_or_else(|_| "memory://".to_owned());
/// let backend = Backend::connect(&url).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Backend {
    inner: Arc<Inner>,
}

/// Shared by all clones of a backend.
struct Inner {
    store: AnyStore,
    /// Where the store is, without user or password.
    address: String,
    /// The prefix of all keys; may be empty.
    key_prefix: String,
    settings: Settings,
    /// Used for a server that has no breaker of its own, and while the server of a key is unknown.
    breaker: Breaker,
    pending: Arc<Pending>,
    /// The task that applies what is pending.
    retry: Background,
    takeovers: Takeovers,
    /// The task that sweeps servers that have started again.
    sweep: Background,
    /// The task that connects again although nothing else is to be sent.
    watch: Background,
    /// Empty until a near cache is built over the backend.
    tracking: OnceLock<Arc<Tracking>>,
    /// The task that subscribes to invalidation messages.
    tracker: Background,
    metrics: BackendMetrics,
    repeats: Repeats,
    /// A permit for each key of a batch that is being read.
    batches: Semaphore,
    /// For tests: pretends that the store can't be reached.
    outage: Arc<AtomicBool>,
    #[cfg(feature = "__proof")]
    rig: Option<Rig>,
}

/// How long each command of a deletion by prefix may take, as a multiple of `operation_timeout`: it scans, and deletes what it finds.
const DELETE_PREFIX_TIMEOUTS: u32 = 8;

impl Inner {
    fn new(store: AnyStore, address: String, key_prefix: String, settings: Settings) -> Self {
        let metrics = BackendMetrics::new(&address);
        let breaker = Breaker::new(address.clone(), &address, settings.breaker_threshold, settings.breaker_pause);
        Self {
            store,
            address,
            key_prefix,
            settings,
            breaker,
            pending: Arc::default(),
            retry: Background::default(),
            takeovers: Takeovers::default(),
            sweep: Background::default(),
            watch: Background::default(),
            tracking: OnceLock::new(),
            tracker: Background::default(),
            metrics,
            repeats: Repeats::default(),
            batches: Semaphore::new(batch::MOST_KEYS as usize),
            outage: Arc::default(),
            #[cfg(feature = "__proof")]
            rig: None,
        }
    }

    /// The guard of the protocol that a proof has taken out.
    fn without(&self) -> Option<Guard> {
        #[cfg(feature = "__proof")]
        if let Some(rig) = &self.rig {
            return rig.without;
        }
        None
    }
}

impl Backend {
    /// Connects to `url` with the default settings, and checks that it answers and has the commands that the library needs: see
    /// [`BackendBuilder::connect`].
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a URL that makes no sense; [`Error::Backend`] or [`Error::Timeout`] when nothing answers
    /// there within [`defaults::CONNECT_TIMEOUT`](crate::defaults::CONNECT_TIMEOUT), 2 seconds, or it wants a password, or
    /// refuses commands.
    ///
    /// # Panics
    ///
    /// On a tokio runtime that was built without time or I/O, as all calls do: `enable_all` switches them on.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::builder(url).connect().await
    }

    /// Prepares a connection to `url` without waiting for it, so that a service starts while its cache is down: reads
    /// bypass the cache until it is there. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a URL that makes no sense, or outside of a tokio runtime.
    pub fn connect_lazy(url: &str) -> Result<Self, Error> {
        Self::builder(url).connect_lazy()
    }

    /// Begins a backend with settings of its own.
    pub fn builder(url: &str) -> BackendBuilder {
        BackendBuilder::new(url)
    }

    /// Asks the server whether it is there, for a readiness probe: also while the circuit breaker is open, which an answer
    /// closes. In a cluster, one server that reports the slot map is enough; each server has a circuit breaker of its own there,
    /// and `ping` closes none of them. `memory://` always answers.
    ///
    /// Redis: `PING`, or in a cluster `CLUSTER SLOTS`; one round trip.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`] or [`Error::Timeout`] if nothing answers within `operation_timeout`, 250 ms by default.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    ///
    /// # Examples
    ///
    /// ```
    /// # use cache_aside::Backend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), cache_aside::Error> {
    /// let backend = Backend::connect_lazy("memory://")?;
    /// let is_ready = backend.ping().await.is_ok();
    /// # assert!(is_ready);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("health"))]
    pub async fn ping(&self) -> Result<(), Error> {
        self.ping_within(None, self.operation_timeout()).await
    }

    /// Waits until all failed writes have been applied to the cache, for at most the builder's
    /// [`close_timeout`](BackendBuilder::close_timeout), 5 seconds by default: call it before the process ends, since what is
    /// pending dies with it. The backend stays usable meanwhile and afterwards; its connections end with its last clone.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] when some are still pending: their old entries live until their TTL ends.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn close(&self) -> Result<(), Error> {
        pending::apply_within(self, self.inner.settings.close_timeout).await
    }

    /// Makes every operation fail until it is switched off again, as if the backend could not be reached: for tests of
    /// how a service behaves during an outage. Entries stay as they are; near caches are emptied, and not used.
    #[cfg(feature = "testing")]
    pub fn outage(&self, on: bool) {
        self.inner.outage.store(on, std::sync::atomic::Ordering::SeqCst);
        self.all_written("");
        self.inner.pending.try_now.notify_one();
    }

    /// The same store, rigged.
    #[cfg(feature = "__proof")]
    #[doc(hidden)]
    pub fn rigged(&self, rig: Rig) -> Self {
        let Inner { store, address, key_prefix, settings, .. } = &*self.inner;
        let inner = Inner::new(store.clone(), address.clone(), key_prefix.clone(), *settings);
        Self { inner: Arc::new(Inner { rig: Some(rig), ..inner }) }.watched()
    }
}

/// For the rest of the crate. The steps are those of [`Store`], with errors for users.
impl Backend {
    /// Whether a guard of the protocol is in place, as always but in proofs.
    pub(crate) fn enforces(&self, guard: Guard) -> bool {
        self.inner.without() != Some(guard)
    }

    pub(crate) fn new_token(&self) -> Token {
        #[cfg(feature = "__proof")]
        if let Some(rig) = &self.inner.rig
            && !self.enforces(Guard::FreshTokens)
        {
            return rig.token.clone();
        }
        Token::new()
    }

    pub(crate) fn repeats(&self) -> &Repeats {
        &self.inner.repeats
    }

    /// Tells backends apart. Clones have the same.
    pub(crate) fn identity(&self) -> usize {
        Arc::as_ptr(&self.inner).addr()
    }

    pub(crate) fn key_prefix(&self) -> &str {
        &self.inner.key_prefix
    }

    pub(crate) fn operation_timeout(&self) -> Duration {
        self.inner.settings.operation_timeout
    }

    /// Asks the server that has the key, or the backend as a whole, within `limit`.
    async fn ping_within(&self, key: Option<&Key>, limit: Duration) -> Result<(), Error> {
        let advice = "check that the server is up and the URL right, rediss:// for TLS and redis:// without, or allow it more time";
        let options = CallOptions { limit, advice, when_open: WhenOpen::Passes, ..CallOptions::for_get(self, key) };
        dispatch!(self, options, "connect", "to the cache", store => store.ping(key, limit))
    }

    pub(crate) async fn read(&self, key: &Key, selection: &Selection, with_ttl: bool) -> Result<Option<Found>, Error> {
        let before = self.takeovers_unless_pending(key)?;
        let found = dispatch!(
            self, CallOptions::for_get(self, key), Read "read", key, store => store.read(key, selection, with_ttl)
        );
        self.check_answer(key, before, found)
    }

    /// After an error too, `token` is the one that may have been granted.
    pub(crate) async fn acquire(&self, key: &Key, token: &mut Token, lease: Duration) -> Result<Acquired, Error> {
        let before = self.takeovers_unless_pending(key)?;
        let acquired = dispatch!(
            self, CallOptions::for_get(self, key), Acquire "lease", key, store => store.acquire(key, token, lease)
        );
        self.check_answer(key, before, acquired)
    }

    /// After an error too, `token` may have been granted.
    pub(crate) async fn take_over(
        &self,
        key: &Key,
        mark: Mark,
        token: &Token,
        lease: Duration,
    ) -> Result<Acquired, Error> {
        let before = self.takeovers_unless_pending(key)?;
        let options = CallOptions::for_get(self, key);
        let taken = dispatch!(self, options, TakeOver "lease", key, store => store.take_over(key, mark, token, lease));
        self.check_answer(key, before, taken)
    }

    pub(crate) async fn renew(&self, key: &Key, token: &Token, lease: Duration) -> Result<bool, Error> {
        let options = CallOptions::for_get(self, key);
        dispatch!(self, options, Renew "renew the lease of", key, store => store.renew(key, token, lease))
    }

    #[expect(clippy::manual_async_fn, reason = "an async fn's arguments take their memory twice")]
    pub(crate) fn fill<'a>(
        &'a self,
        key: &'a Key,
        token: &'a Token,
        fields: Vec<StoredField>,
        ttl: Duration,
    ) -> impl Future<Output = Result<Filled, Error>> + Send + 'a {
        async move {
            let options = CallOptions::for_get(self, key);
            dispatch!(self, options, Fill "fill", key, store => store.fill(key, token, fields, ttl))
        }
    }

    pub(crate) async fn abandon(&self, key: &Key, token: &Token) -> Result<(), Error> {
        let options = CallOptions::for_get(self, key);
        dispatch!(self, options, Abandon "abandon the lease of", key, store => store.abandon(key, token))
    }

    pub(crate) async fn touch(
        &self,
        key: &Key,
        token: &Token,
        meta: Option<Meta>,
        ttl: Duration,
    ) -> Result<Touched, Error> {
        let options = CallOptions::for_get(self, key);
        dispatch!(self, options, Touch "prolong", key, store => store.touch(key, token, meta, ttl))
    }

    pub(crate) async fn mark(&self, key: &Key, token: &Token, mark: Mark, ttl: Duration) -> Result<(), Error> {
        let options = CallOptions::for_get(self, key);
        dispatch!(self, options, Mark "mark the failed load of", key, store => store.mark(key, token, mark, ttl))
    }

    /// Deletes an entry and its lease. Unless that succeeds the key is [pending](Self::is_pending): also when the future is
    /// dropped before it was polled.
    pub(crate) fn invalidate(&self, key: Key) -> impl Future<Output = Result<bool, Error>> + '_ {
        let write = Write::new(self, key);
        async move {
            let was_there = self.remove(&write.key, CallOptions::for_write(self, &write.key)).await?;
            write.invalidated();
            Ok(was_there)
        }
    }

    /// Deletes an entry and its lease, and leaves it to the caller to remember a failure.
    async fn remove(&self, key: &Key, options: CallOptions<'_>) -> Result<bool, Error> {
        dispatch!(self, options, Invalidate "invalidate", key, store => store.invalidate(key))
    }

    /// Deletes all entries of a type, and the leases of its loads; returns how many entries there were. Unless that succeeds, or
    /// is forbidden, the whole type is [pending](Self::is_pending): also when the future is dropped before it was polled.
    pub(crate) fn clear<'a>(&'a self, prefix: &'a str) -> impl Future<Output = Result<u64, Error>> + Send + use<'a> {
        let sweep = Sweep::new(self, prefix);
        async move {
            if let Err(error) = self.delete_kind(prefix, KeyKind::Lease).await {
                // No entry has been deleted. To retry what is forbidden would take the type out of the cache for good.
                if is_forbidden(&error) {
                    sweep.cancel();
                }
                return Err(error);
            }
            let deleted = self.delete_kind(prefix, KeyKind::Entry).await?;
            sweep.succeed();
            Ok(deleted)
        }
    }

    /// Deletes all entries of a type, and the leases of its loads; leaves it to the caller to remember a failure.
    async fn delete_prefix(&self, prefix: &str) -> Result<u64, Error> {
        // Leases come first: in the other order, a load from before could fill again what was deleted.
        self.delete_kind(prefix, KeyKind::Lease).await?;
        self.delete_kind(prefix, KeyKind::Entry).await
    }

    async fn delete_kind(&self, prefix: &str, kind: KeyKind) -> Result<u64, Error> {
        let limit = self.operation_timeout() * DELETE_PREFIX_TIMEOUTS;
        let options = CallOptions { limit, ..CallOptions::for_write(self, None) };
        dispatch!(self, options, "sweep", prefix, store => store.delete_prefix(prefix, kind))
    }

    pub(crate) async fn look(&self, key: &Key) -> Result<EntryAndLease, Error> {
        dispatch!(self, CallOptions::for_get(self, key), Look "look at", key, store => store.look(key))
    }

    /// Whether a write of this key has failed and its invalidation has not been applied yet.
    pub(crate) fn is_pending(&self, key: &Key) -> bool {
        let pending = &self.inner.pending;
        if !pending.is_waiting() {
            return false;
        }
        // The runtime of the task that retries may have ended since, or may not be driven.
        self.sweep_in_background();
        pending::retry_in_background(self);
        pending.contains(key) || self.is_unswept(key)
    }

    /// Why a pending key is not read.
    pub(crate) fn pending_error(&self, key: &Key) -> Error {
        let advice = "its invalidation is tried again until it is applied";
        failed(self, format!("read {key}"), advice, Cause::new(MayBeOld))
    }
}

/// The address, without passwords: `redis://127.0.0.1:6379`.
impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.address)
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Backend").field(&self.inner.address).finish()
    }
}
