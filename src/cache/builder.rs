//! The settings of a cache, as a service sets them: [`CacheBuilder`].

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::{Cache, Core, OnOutage, Policy, UpdateTtl};
use crate::backend::Backend;
use crate::error::Error;
use crate::near::NearCache;
use crate::record::{Cacheable, Shape, shape};

/// The settings of a [`Cache`], begun with [`Cache::builder`].
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
    /// As it was set here; `None` when it wasn't.
    not_found_ttl: Option<Option<Duration>>,
    of: PhantomData<fn() -> T>,
}

impl<T: Cacheable> CacheBuilder<T> {
    pub(super) fn new(backend: Backend) -> Self {
        let namespace = T::SCHEMA.namespace.map(str::to_owned);
        Self { backend, policy: Policy::new(&T::SCHEMA), namespace, not_found_ttl: None, of: PhantomData }
    }

    /// The namespace of the keys, instead of the struct's: for structs that several services share.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// How long a record lives in the cache. Default: the struct's `ttl`, else [`defaults::TTL`].
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.policy.ttl = ttl;
        self
    }

    /// Chooses the lifetime of each record when it is stored; less than a millisecond keeps it out of the cache.
    /// Default: every record lives for `ttl`.
    pub fn ttl_by(mut self, ttl_by: impl Fn(&T) -> Duration + Send + Sync + 'static) -> Self {
        self.policy.ttl_by = Some(Arc::new(move |record| ttl_by(shape::borrow(record))));
        self
    }

    /// How long it is remembered that a record doesn't exist; `None` for not at all. It must be less than `ttl`.
    /// Default: the struct's `not_found_ttl`, else [`defaults::NOT_FOUND_TTL`]; half of `ttl` where that is not less.
    pub fn not_found_ttl(mut self, not_found_ttl: impl Into<Option<Duration>>) -> Self {
        self.not_found_ttl = Some(not_found_ttl.into());
        self
    }

    /// The part, from 0.0 to less than 1.0, by which a lifetime is shortened at random at most, so that entries that
    /// were filled together don't end together. Default: [`defaults::JITTER`].
    pub fn jitter(mut self, jitter: f64) -> Self {
        self.policy.jitter = jitter;
        self
    }

    /// How long a record is kept past its TTL, to be served when its load fails, panics or exceeds `load_timeout`: as
    /// [`Outcome::Stale`](crate::Outcome::Stale), and never after an invalidation. `None` for not at all. Every cache of
    /// these keys takes such a record for a miss; only those with this setting serve it. Default: the struct's
    /// `stale_if_error`, else not at all.
    ///
    /// Redis: reads have a `PTTL` more, in the same round trip; a load that failed costs one more read.
    pub fn stale_if_error(mut self, stale_if_error: impl Into<Option<Duration>>) -> Self {
        self.policy.stale_if_error = stale_if_error.into();
        self
    }

    /// How long a load that failed is not tried again, by any process, while its stale record is served: an invalidation
    /// ends the pause. And how long this process lets a record alone that it could not refresh ahead. Default: the struct's
    /// `stale_retry`, else [`defaults::STALE_RETRY`].
    pub fn stale_retry(mut self, stale_retry: Duration) -> Self {
        self.policy.stale_retry = stale_retry;
        self
    }

    /// Lets a hit load its record anew in the background before it ends, with its own loader: so records that are read often
    /// don't end, and no read waits for them. The number is beta of the rule of Vattani and others ("Optimal Probabilistic
    /// Cache Stampede Prevention", VLDB 2015): at each hit the chance is `exp(-ttl / (beta * load))`, where `ttl` is what the
    /// record has left and `load` how long its last load took. 1.0, [`defaults::REFRESH_AHEAD`], is right for most; more
    /// refreshes earlier. Of all processes one refreshes; invalidations overtake a refresh as every load. `None` for not at
    /// all. It must be finite and more than 0. Default: the struct's `refresh_ahead`, else not at all.
    ///
    /// Redis: reads have a `PTTL` more, in the same round trip; a refresh is what a miss is.
    pub fn refresh_ahead(mut self, beta: impl Into<Option<f64>>) -> Self {
        self.policy.refresh_ahead = beta.into();
        self
    }

    /// Whether updates move the entry's deadline. Default: [`defaults::UPDATE_TTL`], keep.
    pub fn update_ttl(mut self, update_ttl: UpdateTtl) -> Self {
        self.policy.update_ttl = update_ttl;
        self
    }

    /// Length of a lease: how long others wait at most for a process that died while loading. It is renewed while the
    /// loader runs, so it may be shorter than a load. Default: [`defaults::LOCK_TTL`].
    pub fn lock_ttl(mut self, lock_ttl: Duration) -> Self {
        self.policy.lock_ttl = lock_ttl;
        self
    }

    /// How long a loader may run; then it is dropped, and all who wait for it get [`Error::Timeout`]. Default:
    /// [`defaults::LOAD_TIMEOUT`].
    pub fn load_timeout(mut self, load_timeout: Duration) -> Self {
        self.policy.load_timeout = load_timeout;
        self
    }

    /// The longest pause between two looks at another process' load. The pauses are jittered, and shorter at first.
    /// Default: [`defaults::WAIT_POLL`].
    pub fn wait_poll(mut self, wait_poll: Duration) -> Self {
        self.policy.wait_poll = wait_poll;
        self
    }

    /// How long another process' load is waited for; then the record is loaded around the cache. Default:
    /// [`defaults::WAIT_TIMEOUT`].
    pub fn wait_timeout(mut self, wait_timeout: Duration) -> Self {
        self.policy.wait_timeout = wait_timeout;
        self
    }

    /// How long an update tries to get past the updates of others. Default: [`defaults::UPDATE_TIMEOUT`].
    pub fn update_timeout(mut self, update_timeout: Duration) -> Self {
        self.policy.update_timeout = update_timeout;
        self
    }

    /// What a get does when the cache is out of reach. Default: [`defaults::ON_OUTAGE`], load.
    pub fn on_outage(mut self, on_outage: OnOutage) -> Self {
        self.policy.on_outage = on_outage;
        self
    }

    /// How many loads may go around a cache that is out of reach at the same time, in this cache and its clones: so a dead
    /// cache doesn't become a dead primary. More wait in turn, for at most `wait_timeout`; then they end with
    /// [`Error::Timeout`]. Default: [`defaults::MAX_BYPASS_LOADS`].
    pub fn max_bypass_loads(mut self, max_bypass_loads: usize) -> Self {
        self.policy.max_bypass_loads = max_bypass_loads;
        self
    }

    /// The largest record that is stored, as bytes of field names and values; a larger one is returned, not stored, and
    /// a warning logged. Default: [`defaults::MAX_ENTRY_BYTES`].
    pub fn max_entry_bytes(mut self, max_entry_bytes: usize) -> Self {
        self.policy.max_entry_bytes = max_entry_bytes;
        self
    }

    /// Keeps decoded records in this process' memory, in front of Redis, where `get`, `lookup`, `get_many`, `lookup_many` and
    /// `get_fields` look first: what that promises is told at [`NearCache`]. Whole records are kept, as all of these but
    /// `get_fields` read them. [`get_fresh`](Cache::get_fresh) goes past it. `None` for none.
    /// On `memory://` there is none, whatever is set here. Default: none.
    ///
    /// A [refresh ahead](Self::refresh_ahead) is drawn by those hits alone that Redis answers.
    ///
    /// Redis: one connection more to each server, and a `PTTL` more with each read, in the same round trip.
    pub fn near_cache(mut self, near_cache: impl Into<Option<NearCache>>) -> Self {
        self.policy.near_cache = near_cache.into();
        self
    }

    /// Whether the cache is used at all; if not, every get goes to the loader. Invalidations and updates are carried
    /// out all the same, so that other processes stay right. Default: [`defaults::ENABLED`], `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.policy.enabled = enabled;
        self
    }

    /// Builds the cache.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a setting that is out of its range or contradicts another.
    pub fn build(mut self) -> Result<Cache<T>, Error> {
        self.policy.check(&T::SCHEMA, self.not_found_ttl)?;
        self.namespace.as_deref().map_or(Ok(()), check_namespace)?;
        Ok(self.build_unchecked())
    }

    /// For [`Cache::new`]: the derive has checked the attributes, and the defaults are right.
    pub(super) fn build_unchecked(self) -> Cache<T> {
        let namespace = self.namespace.as_deref();
        Cache::of(Core::new(Shape::of::<T>(), self.backend, namespace, self.policy))
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
