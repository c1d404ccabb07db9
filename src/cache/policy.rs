//! How a cache behaves: [`CacheBuilder`], its settings, and their checks.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tokio::sync::Semaphore;

use super::{Cache, Core};
use crate::backend::{Backend, Selection};
use crate::cacheable::Cacheable;
use crate::defaults::{self, check_duration};
use crate::entry::{self, Meta};
use crate::error::Error;
use crate::flight::Flights;
use crate::key::{Key, KeySpace};
use crate::lease::Orphans;
use crate::meter::{CacheMeter, NearMeter};
use crate::near::{Near, NearCache};
use crate::record::StoredField;
use crate::refresh::Refreshes;
use crate::repeats::Repeats;
use crate::spread::SpreadArc;

/// Whether an update moves the entry's deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum UpdateTtl {
    /// The entry ends when it would have ended: whatever an update doesn't touch is never kept for longer.
    #[default]
    Keep,
    /// The entry gets a new lifetime, as if it had just been loaded.
    Refresh,
}

/// What a get does when the cache is out of reach, or may be older than the primary because an invalidation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnOutage {
    /// It loads around the cache: once per key and process, and [`max_bypass_loads`](CacheBuilder::max_bypass_loads) at a
    /// time. Nothing is stored.
    #[default]
    Load,
    /// It fails with the cache's error: for a primary that can't bear more than the misses.
    Fail,
}

type TtlBy<T> = Arc<dyn Fn(&T) -> Duration + Send + Sync>;

/// The checked settings of a cache.
pub(crate) struct Policy<T> {
    ttl: Duration,
    ttl_by: Option<TtlBy<T>>,
    not_found_ttl: Option<Duration>,
    jitter: f64,
    pub(crate) stale_if_error: Option<Duration>,
    pub(crate) stale_retry: Duration,
    /// Beta of the rule.
    pub(crate) refresh_ahead: Option<f64>,
    pub(crate) update_ttl: UpdateTtl,
    pub(crate) lock_ttl: Duration,
    pub(crate) load_timeout: Duration,
    pub(crate) wait_poll: Duration,
    pub(crate) wait_timeout: Duration,
    pub(crate) update_timeout: Duration,
    pub(crate) on_outage: OnOutage,
    pub(crate) max_bypass_loads: usize,
    pub(crate) max_entry_bytes: usize,
    pub(super) near_cache: Option<NearCache>,
    pub(crate) enabled: bool,
}

impl<T: Cacheable> Policy<T> {
    pub(super) fn new() -> Self {
        let ttl = T::SCHEMA.ttl.unwrap_or(defaults::TTL);
        Self {
            ttl,
            ttl_by: None,
            not_found_ttl: Some(default_not_found_ttl::<T>(ttl)),
            jitter: defaults::JITTER,
            stale_if_error: T::SCHEMA.stale_if_error,
            stale_retry: T::SCHEMA.stale_retry.unwrap_or(defaults::STALE_RETRY),
            refresh_ahead: T::SCHEMA.refresh_ahead,
            update_ttl: defaults::UPDATE_TTL,
            lock_ttl: defaults::LOCK_TTL,
            load_timeout: defaults::LOAD_TIMEOUT,
            wait_poll: defaults::WAIT_POLL,
            wait_timeout: defaults::WAIT_TIMEOUT,
            update_timeout: defaults::UPDATE_TIMEOUT,
            on_outage: defaults::ON_OUTAGE,
            max_bypass_loads: defaults::MAX_BYPASS_LOADS,
            max_entry_bytes: defaults::MAX_ENTRY_BYTES,
            near_cache: None,
            enabled: defaults::ENABLED,
        }
    }

    /// Whether this cache needs to know how long an entry will live whenever it reads one.
    pub(crate) fn reads_lifetimes(&self) -> bool {
        self.stale_if_error.is_some() || self.refresh_ahead.is_some()
    }

    /// The entry to store for what a loader returned after `took`, and how long it is to be there; `None` when nothing is
    /// to be stored.
    pub(crate) fn entry(
        &self,
        key: &Key,
        record: Option<&T>,
        took: Duration,
        repeats: &Repeats,
    ) -> Option<(Vec<StoredField>, Duration)> {
        let Some(record) = record else {
            return self.not_found_ttl.map(|ttl| (entry::not_found(), self.jittered(ttl)));
        };
        let ttl = self.lifetime(record)?;
        let mut fields = match entry::encode(record) {
            Ok(fields) => fields,
            Err(mistake) => {
                let cause = std::error::Error::source(&mistake).map(ToString::to_string);
                let keys = key.prefix();
                repeats.warn(format!("encode {keys} {mistake}"), |times| {
                    tracing::warn!(keys, %mistake, cause, times, "a record could not be encoded and is not cached");
                });
                return None;
            }
        };
        let load = self.refresh_ahead.map(|_| took.max(defaults::SHORTEST));
        let meta = Meta { stale: self.stale_if_error, load };
        fields.extend(meta.field());
        self.fits(key, entry::size(&fields), repeats).then_some((fields, ttl + meta.stale.unwrap_or_default()))
    }

    /// Whether an entry of this size may be stored.
    pub(crate) fn fits(&self, key: &Key, bytes: usize, repeats: &Repeats) -> bool {
        let fits = bytes <= self.max_entry_bytes;
        if !fits {
            let (keys, max_entry_bytes) = (key.prefix(), self.max_entry_bytes);
            repeats.warn(format!("too large {keys}"), |times| {
                tracing::warn!(keys, bytes, max_entry_bytes, times, "a record is too large and is not cached");
            });
        }
        fits
    }

    /// The lifetime of a record that is stored now; `None` when `ttl_by` wants it not to be stored.
    pub(crate) fn lifetime(&self, record: &T) -> Option<Duration> {
        let ttl = self.ttl_by.as_ref().map_or(self.ttl, |ttl_by| ttl_by(record).min(defaults::LONGEST));
        (ttl >= defaults::SHORTEST).then(|| self.jittered(ttl))
    }

    fn jittered(&self, ttl: Duration) -> Duration {
        let part = rand::rng().random_range(0.0..=self.jitter);
        ttl.mul_f64(1.0 - part).max(defaults::SHORTEST)
    }
}

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
    policy: Policy<T>,
    namespace: Option<String>,
    /// As it was set here; `None` when it wasn't.
    not_found_ttl: Option<Option<Duration>>,
}

impl<T: Cacheable> CacheBuilder<T> {
    pub(super) fn new(backend: Backend) -> Self {
        let namespace = T::SCHEMA.namespace.map(str::to_owned);
        Self { backend, policy: Policy::new(), namespace, not_found_ttl: None }
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
        self.policy.ttl_by = Some(Arc::new(ttl_by));
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
        self.settle_not_found_ttl()?;
        self.check_durations()?;
        let policy = &self.policy;
        if !(0.0..1.0).contains(&policy.jitter) {
            return Err(Error::config(format!(
                "jitter is {}: it must be at least 0.0 and less than 1.0",
                policy.jitter
            )));
        }
        if let Some(beta) = policy.refresh_ahead
            && !(beta.is_finite() && beta > 0.0)
        {
            return Err(Error::config(format!("refresh_ahead is {beta}: it must be finite and more than 0.0")));
        }
        if policy.wait_poll > policy.wait_timeout {
            let (poll, timeout) = (policy.wait_poll, policy.wait_timeout);
            return Err(Error::config(format!("wait_poll is {poll:?}: it must be at most wait_timeout, {timeout:?}")));
        }
        if !(1..=Semaphore::MAX_PERMITS).contains(&policy.max_bypass_loads) {
            let (given, most) = (policy.max_bypass_loads, Semaphore::MAX_PERMITS);
            return Err(Error::config(format!(
                "max_bypass_loads is {given}: it must be from 1 to {most}; to load nothing write `on_outage(OnOutage::Fail)`"
            )));
        }
        if policy.max_entry_bytes == 0 {
            return Err(Error::config("max_entry_bytes is 0: to switch the cache off write `enabled(false)`"));
        }
        if let Some(namespace) = &self.namespace {
            check_namespace(namespace)?;
        }
        if let Some(near_cache) = &policy.near_cache {
            near_cache.check()?;
        }
        Ok(self.build_unchecked())
    }

    /// For [`Cache::new`]: the derive has checked the attributes, and the defaults are right.
    pub(super) fn build_unchecked(self) -> Cache<T> {
        let keys = KeySpace::new(self.namespace.as_deref(), &T::SCHEMA);
        let namespace = self.namespace.as_deref().unwrap_or_default();
        let meter = CacheMeter::new(namespace, T::SCHEMA.entity);
        let near = self.policy.near_cache.filter(|_| self.policy.enabled).and_then(|settings| {
            let tracking = self.backend.tracking()?;
            let (largest, meter) = (self.policy.max_entry_bytes, NearMeter::new(namespace, T::SCHEMA.entity));
            let near = Near::new(settings, keys.prefix(), largest, tracking, meter);
            self.backend.track();
            Some(near)
        });
        let core = Core {
            near,
            keys,
            meter,
            selection: Selection::of(&T::SCHEMA),
            flights: Flights::new(),
            bypasses: Flights::new(),
            refreshes: Refreshes::default(),
            orphans: Orphans::default(),
            bypass_loads: Semaphore::new(self.policy.max_bypass_loads),
            backend: self.backend,
            policy: self.policy,
        };
        Cache { core: SpreadArc::new(core) }
    }

    fn settle_not_found_ttl(&mut self) -> Result<(), Error> {
        let ttl = self.policy.ttl;
        self.policy.not_found_ttl = match self.not_found_ttl {
            None => Some(default_not_found_ttl::<T>(ttl)),
            Some(Some(not_found_ttl)) if not_found_ttl >= ttl => {
                return Err(Error::config(format!(
                    "not_found_ttl is {not_found_ttl:?}: it must be less than ttl, {ttl:?}"
                )));
            }
            Some(not_found_ttl) => not_found_ttl,
        };
        Ok(())
    }

    fn check_durations(&self) -> Result<(), Error> {
        let policy = &self.policy;
        check_duration("ttl", policy.ttl)?;
        policy.not_found_ttl.map_or(Ok(()), |ttl| check_duration("not_found_ttl", ttl))?;
        policy.stale_if_error.map_or(Ok(()), |tail| check_duration("stale_if_error", tail))?;
        check_duration("stale_retry", policy.stale_retry)?;
        check_duration("lock_ttl", policy.lock_ttl)?;
        check_duration("load_timeout", policy.load_timeout)?;
        check_duration("wait_poll", policy.wait_poll)?;
        check_duration("wait_timeout", policy.wait_timeout)?;
        check_duration("update_timeout", policy.update_timeout)
    }
}

/// What the struct's attribute or the default says, unless `ttl` is shorter.
fn default_not_found_ttl<T: Cacheable>(ttl: Duration) -> Duration {
    let not_found_ttl = T::SCHEMA.not_found_ttl.unwrap_or(defaults::NOT_FOUND_TTL);
    if not_found_ttl < ttl { not_found_ttl } else { (ttl / 2).max(defaults::SHORTEST) }
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
