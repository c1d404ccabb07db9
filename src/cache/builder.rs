//! The settings of a cache: [`CacheBuilder`].

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::policy::Given;
use super::{Cache, Core, OnOutage, Policy, UpdateTtl};
use crate::backend::Backend;
use crate::counters::ShardedArc;
use crate::defaults;
use crate::error::Error;
use crate::near::NearCache;
use crate::record::{Cacheable, Shape, borrowed};

/// Builds a [`Cache`] with settings of its own: see [`Cache::builder`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use cache_aside::{Backend, Cache, Cacheable, UpdateTtl};
/// # #[derive(Debug, Cacheable)]
/// # struct Product { #[cacheable(id)] id: String, stock: u32 }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cache_aside::Error> {
/// # let backend = Backend::connect("memory://").await?;
/// let products: Cache<Product> = Cache::builder(backend)
///     .ttl_by(|product: &Product| Duration::from_secs(if product.stock == 0 { 10 } else { 600 }))
///     .not_found_ttl(None)
///     .load_timeout(Duration::from_secs(3))
///     .update_ttl(UpdateTtl::Refresh)
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "it does nothing until `build`"]
pub struct CacheBuilder<T: Cacheable> {
    backend: Backend,
    policy: Policy,
    namespace: Option<String>,
    given: Given,
    is_enabled: bool,
    of: PhantomData<fn() -> T>,
}

impl<T: Cacheable> CacheBuilder<T> {
    pub(super) fn new(backend: Backend) -> Self {
        let namespace = T::SCHEMA.namespace.map(str::to_owned);
        let (policy, given) = (Policy::new(&T::SCHEMA), Given::default());
        Self { backend, policy, namespace, given, is_enabled: defaults::ENABLED, of: PhantomData }
    }

    /// Sets the namespace of the keys, in place of the struct's: for structs that several services share. Default: the
    /// struct's `namespace`, or none.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Sets how long a record lives in the cache, from 1 ms to 36,500 days. Default: the struct's `ttl`, or
    /// [`defaults::TTL`](crate::defaults::TTL), 5 minutes.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.policy.ttl = ttl;
        self
    }

    /// Chooses the lifetime of each record when it is stored. Less than 1 ms keeps the record out of the cache, and more than
    /// 36,500 days count as that. Fields with `skip` are already `Default` in the record that it sees. Default: every record lives for
    /// `ttl`.
    pub fn ttl_by(mut self, ttl_by: impl Fn(&T) -> Duration + Send + Sync + 'static) -> Self {
        self.policy.ttl_by = Some(Arc::new(move |record| ttl_by(borrowed(record))));
        self
    }

    /// Sets how long the cache remembers that a record doesn't exist, from 1 ms to less than `ttl`. `None`: not at all. Default:
    /// the struct's `not_found_ttl`, or [`defaults::NOT_FOUND_TTL`](crate::defaults::NOT_FOUND_TTL), 5 seconds; half of `ttl` if
    /// that is not less.
    pub fn not_found_ttl(mut self, not_found_ttl: impl Into<Option<Duration>>) -> Self {
        self.given.not_found_ttl = Some(not_found_ttl.into());
        self
    }

    /// Sets the largest fraction, from 0.0 to less than 1.0, by which each lifetime is shortened at random, so that
    /// entries that were filled together don't expire together. Default: [`defaults::JITTER`](crate::defaults::JITTER),
    /// 0.1, which is 10 %.
    pub fn jitter(mut self, jitter: f64) -> Self {
        self.policy.jitter = jitter;
        self
    }

    /// Sets how long a record is kept past its TTL, to be served if its load fails, panics or exceeds `load_timeout`:
    /// as [`Outcome::Stale`](crate::Outcome::Stale), and never after an invalidation. From 1 ms to 36,500 days; `None`: not at
    /// all. In every cache of these keys such a record counts as a miss; only caches with this setting serve it. Default: the
    /// struct's `stale_if_error`, or `None`.
    ///
    /// Redis: each read has one more `PTTL`, in the same round trip. A load that failed costs one more read.
    pub fn stale_if_error(mut self, stale_if_error: impl Into<Option<Duration>>) -> Self {
        self.policy.stale_if_error = stale_if_error.into();
        self
    }

    /// Sets how long a record is kept past its TTL, to be served while it is loaded anew, so that no read waits for the load:
    /// as [`Outcome::Stale`](crate::Outcome::Stale), and never after an invalidation. One process loads. If that load fails, the
    /// record is served until its window ends, and the load is retried after [`stale_retry`](Self::stale_retry). From 1 ms to
    /// 36,500 days; `None`: not at all. In caches of these keys without this setting such a record counts as a miss. Default: the
    /// struct's `stale_while_revalidate`, or `None`.
    ///
    /// A record is kept for the longer of this and [`stale_if_error`](Self::stale_if_error), and a loader may set how long by
    /// [`Loaded::stale_for`](crate::Loaded::stale_for). Each cache serves what its own settings allow.
    ///
    /// Redis: each read has one more `PTTL`, in the same round trip. Calls that join a load in their process read first.
    ///
    /// Source: RFC 5861, "HTTP Cache-Control Extensions for Stale Content".
    pub fn stale_while_revalidate(mut self, stale_while_revalidate: impl Into<Option<Duration>>) -> Self {
        self.policy.stale_while_revalidate = stale_while_revalidate.into();
        self
    }

    /// Sets how long a get waits for the load of a record that it could serve stale: see
    /// [`stale_while_revalidate`](Self::stale_while_revalidate). Zero: not at all; or from 1 ms to 36,500 days. Default: the
    /// struct's `soft_timeout`, or [`defaults::SOFT_TIMEOUT`](crate::defaults::SOFT_TIMEOUT), zero.
    pub fn soft_timeout(mut self, soft_timeout: Duration) -> Self {
        self.policy.soft_timeout = soft_timeout;
        self
    }

    /// Sets how long no process retries a failed load while its stale record is served; an invalidation ends the pause.
    /// It is also how long this process doesn't retry a refresh ahead that failed. From 1 ms to 36,500 days. Default: the
    /// struct's `stale_retry`, or [`defaults::STALE_RETRY`](crate::defaults::STALE_RETRY), 1 second.
    pub fn stale_retry(mut self, stale_retry: Duration) -> Self {
        self.policy.stale_retry = stale_retry;
        self
    }

    /// Lets a hit reload its record in the background before it expires, with the hit's own loader, so that records
    /// that are read often don't expire, and no read waits for them. `None`: not at all.
    ///
    /// The number is the beta of `XFetch` (Vattani and others, "Optimal Probabilistic Cache Stampede Prevention", VLDB
    /// 2015): a hit refreshes its record with probability `exp(-ttl / (beta * load))`, where `ttl` is the record's
    /// remaining TTL and `load` is how long its last load took. 1.0,
    /// [`defaults::REFRESH_AHEAD`](crate::defaults::REFRESH_AHEAD), suits most records, and a larger number refreshes
    /// earlier. It must be finite and more than 0. Only one process refreshes a record at a time, and an invalidation
    /// fences a refresh like any load. Default: the struct's `refresh_ahead`, or `None`.
    ///
    /// Redis: each read has one more `PTTL`, in the same round trip. A refresh costs as much as a miss.
    pub fn refresh_ahead(mut self, beta: impl Into<Option<f64>>) -> Self {
        self.policy.refresh_ahead = beta.into();
        self
    }

    /// Sets whether updates extend the lifetime of the entry. Default:
    /// [`defaults::UPDATE_TTL`](crate::defaults::UPDATE_TTL), they keep it.
    pub fn update_ttl(mut self, update_ttl: UpdateTtl) -> Self {
        self.policy.update_ttl = update_ttl;
        self
    }

    /// Sets the length of a lease: how long others wait, at most, for a process that died while loading. A lease is
    /// renewed while the loader runs, so this may be shorter than a load. From 1 ms to 36,500 days. Default:
    /// [`defaults::LOCK_TTL`](crate::defaults::LOCK_TTL), 5 seconds.
    pub fn lock_ttl(mut self, lock_ttl: Duration) -> Self {
        self.policy.lock_ttl = lock_ttl;
        self
    }

    /// Sets how long a loader may run, from 1 ms to 36,500 days. After that it is dropped, and all callers that wait for it get
    /// [`Error::Timeout`]. Default: [`defaults::LOAD_TIMEOUT`](crate::defaults::LOAD_TIMEOUT), 30 seconds.
    pub fn load_timeout(mut self, load_timeout: Duration) -> Self {
        self.given.load_timeout = Some(load_timeout);
        self
    }

    /// Sets the longest pause between two polls for the result of another process' load, from 1 ms to `wait_timeout`. Pauses are
    /// jittered, and shorter at first. Default: [`defaults::WAIT_POLL`](crate::defaults::WAIT_POLL), 20 milliseconds.
    pub fn wait_poll(mut self, wait_poll: Duration) -> Self {
        self.policy.wait_poll = wait_poll;
        self
    }

    /// Sets how long a get waits for another process' load. After that it loads the record around the cache. It is also how long
    /// a load around the cache waits for its turn: see [`max_bypass_loads`](Self::max_bypass_loads). From 1 ms to 36,500 days, and
    /// at least a [`load_timeout`](Self::load_timeout) that was set: a load within that is then made once over all processes.
    /// Default: the `load_timeout` if that is set, else [`defaults::WAIT_TIMEOUT`](crate::defaults::WAIT_TIMEOUT), 30 seconds.
    pub fn wait_timeout(mut self, wait_timeout: Duration) -> Self {
        self.given.wait_timeout = Some(wait_timeout);
        self
    }

    /// Sets how long an update retries when others change the entry at the same time, from 1 ms to 36,500 days. Default:
    /// [`defaults::UPDATE_TIMEOUT`](crate::defaults::UPDATE_TIMEOUT), 1 second.
    pub fn update_timeout(mut self, update_timeout: Duration) -> Self {
        self.policy.update_timeout = update_timeout;
        self
    }

    /// Sets how a get responds to a cache that is out of reach. Default:
    /// [`defaults::ON_OUTAGE`](crate::defaults::ON_OUTAGE), load around it.
    pub fn on_outage(mut self, on_outage: OnOutage) -> Self {
        self.policy.on_outage = on_outage;
        self
    }

    /// Sets how many loads may go around a cache that is out of reach at the same time, in this cache and its clones,
    /// so that a cache that is down doesn't bring down the primary. Further loads queue for at most `wait_timeout`, and
    /// then end with [`Error::Timeout`]. From 1 to [`Semaphore::MAX_PERMITS`](tokio::sync::Semaphore::MAX_PERMITS). Default:
    /// [`defaults::MAX_BYPASS_LOADS`](crate::defaults::MAX_BYPASS_LOADS), 256.
    pub fn max_bypass_loads(mut self, max_bypass_loads: usize) -> Self {
        self.policy.max_bypass_loads = max_bypass_loads;
        self
    }

    /// Sets the size of the largest record that is stored, in bytes of field names and values. A larger record is
    /// returned but not stored, and a warning is logged. At least 1. Default:
    /// [`defaults::MAX_ENTRY_BYTES`](crate::defaults::MAX_ENTRY_BYTES), 1 MiB.
    pub fn max_entry_bytes(mut self, max_entry_bytes: usize) -> Self {
        self.policy.max_entry_bytes = max_entry_bytes;
        self
    }

    /// Keeps decoded records in this process' memory, in front of Redis. `get`, `lookup`, `get_many`, `lookup_many` and
    /// `get_fields` look there first; all of them but `get_fields` fill it, since it keeps whole records.
    /// [`get_fresh`](Cache::get_fresh) skips it. [`NearCache`] says what it promises. On `memory://` there is no near
    /// cache, whatever is set here. Default: `None`.
    ///
    /// Only hits that Redis answers start a [refresh ahead](Self::refresh_ahead).
    ///
    /// Redis: one more connection to each server, and one more `PTTL` with each read, in the same round trip.
    pub fn near_cache(mut self, near_cache: impl Into<Option<NearCache>>) -> Self {
        self.policy.near_cache = near_cache.into();
        self
    }

    /// Sets whether the cache is used at all. If not, every get goes to the loader. Invalidations and updates are still
    /// carried out, for the sake of other processes. [`Cache::set_enabled`] changes it later. Default: [`defaults::ENABLED`](crate::defaults::ENABLED), `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.is_enabled = enabled;
        self
    }

    /// Builds the cache.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if a setting is out of its range or contradicts another.
    pub fn build(mut self) -> Result<Cache<T>, Error> {
        self.policy.check(&T::SCHEMA, &self.given)?;
        self.namespace.as_deref().map_or(Ok(()), check_namespace)?;
        Ok(self.build_unchecked())
    }

    /// For [`Cache::new`]: the derive has checked the attributes, and the defaults are valid.
    pub(super) fn build_unchecked(self) -> Cache<T> {
        let namespace = self.namespace.as_deref();
        let core = Core::new(Shape::of::<T>(), self.backend, namespace, self.policy, self.is_enabled);
        Cache { core: ShardedArc::new(core), of: PhantomData }
    }
}

fn check_namespace(namespace: &str) -> Result<(), Error> {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
    if !namespace.is_empty() && namespace.bytes().all(is_allowed) {
        return Ok(());
    }
    Err(Error::config(format!("the namespace {namespace:?} must be one or more of a-z, 0-9, `_` and `-`")))
}

impl<T: Cacheable> std::fmt::Debug for CacheBuilder<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheBuilder")
            .field("backend", &self.backend)
            .field("entity", &T::SCHEMA.entity)
            .finish_non_exhaustive()
    }
}
