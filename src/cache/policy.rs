//! The checked settings of a cache, and the lifetimes that follow from them.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tokio::sync::Semaphore;

use crate::defaults::{self, check_duration};
use crate::error::Error;
use crate::near::NearCache;
use crate::record::{Record, Schema};

/// Whether an update extends the lifetime of the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum UpdateTtl {
    /// The entry still expires when it would have: fields that the update doesn't set are never kept for longer.
    #[default]
    Keep,
    /// The entry gets a new lifetime, as if it had just been loaded.
    Refresh,
}

/// How a get responds to a cache that is out of reach, or in which an invalidation of the record is
/// [pending](crate::Cache::pending).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnOutage {
    /// It loads around the cache: once per key and process, and at most
    /// [`max_bypass_loads`](crate::CacheBuilder::max_bypass_loads) at a time. Nothing is stored.
    #[default]
    Load,
    /// It fails with the cache's error: for a primary that can't handle more load than the misses.
    Fail,
}

/// Chooses the lifetime of a record.
pub(super) type TtlBy = Arc<dyn Fn(&Record) -> Duration + Send + Sync>;

/// The checked settings of a cache.
pub(crate) struct Policy {
    pub(super) ttl: Duration,
    pub(super) ttl_by: Option<TtlBy>,
    pub(super) not_found_ttl: Option<Duration>,
    pub(super) jitter: f64,
    pub(crate) stale_if_error: Option<Duration>,
    pub(crate) stale_retry: Duration,
    /// The beta of `XFetch`.
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

impl Policy {
    pub(super) fn new(schema: &Schema) -> Self {
        let ttl = schema.ttl.unwrap_or(defaults::TTL);
        Self {
            ttl,
            ttl_by: None,
            not_found_ttl: Some(default_not_found_ttl(schema, ttl)),
            jitter: defaults::JITTER,
            stale_if_error: schema.stale_if_error,
            stale_retry: schema.stale_retry.unwrap_or(defaults::STALE_RETRY),
            refresh_ahead: schema.refresh_ahead,
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

    /// The lifetime of a not-found entry that is stored now. `None` if it isn't stored.
    pub(super) fn not_found_lifetime(&self) -> Option<Duration> {
        self.not_found_ttl.map(|ttl| self.jittered(ttl))
    }

    /// The lifetime of a record that is stored now. `None` if `ttl_by` keeps it out of the cache.
    pub(crate) fn lifetime(&self, record: &Record) -> Option<Duration> {
        let ttl = self.ttl_by.as_ref().map_or(self.ttl, |ttl_by| ttl_by(record).min(defaults::LONGEST));
        (ttl >= defaults::SHORTEST).then(|| self.jittered(ttl))
    }

    fn jittered(&self, ttl: Duration) -> Duration {
        let part = rand::rng().random_range(0.0..=self.jitter);
        ttl.mul_f64(1.0 - part).max(defaults::SHORTEST)
    }

    /// Checks the range of each setting, and that no two settings contradict each other. `not_found_ttl`: the argument of the
    /// builder's setter, if it was called.
    pub(super) fn check(&mut self, schema: &Schema, not_found_ttl: Option<Option<Duration>>) -> Result<(), Error> {
        let ttl = self.ttl;
        if let Some(Some(given)) = not_found_ttl
            && given >= ttl
        {
            return Err(Error::config(format!("not_found_ttl is {given:?}: it must be less than ttl, {ttl:?}")));
        }
        self.not_found_ttl = not_found_ttl.unwrap_or_else(|| Some(default_not_found_ttl(schema, ttl)));
        self.check_durations()?;
        if !(0.0..1.0).contains(&self.jitter) {
            return Err(Error::config(format!("jitter is {}: it must be at least 0.0 and less than 1.0", self.jitter)));
        }
        if let Some(beta) = self.refresh_ahead
            && !(beta.is_finite() && beta > 0.0)
        {
            return Err(Error::config(format!("refresh_ahead is {beta}: it must be finite and more than 0.0")));
        }
        if self.wait_poll > self.wait_timeout {
            let (poll, timeout) = (self.wait_poll, self.wait_timeout);
            return Err(Error::config(format!("wait_poll is {poll:?}: it must be at most wait_timeout, {timeout:?}")));
        }
        if !(1..=Semaphore::MAX_PERMITS).contains(&self.max_bypass_loads) {
            let (given, most) = (self.max_bypass_loads, Semaphore::MAX_PERMITS);
            return Err(Error::config(format!(
                "max_bypass_loads is {given}: it must be from 1 to {most}; to load nothing write `on_outage(OnOutage::Fail)`"
            )));
        }
        if self.max_entry_bytes == 0 {
            return Err(Error::config("max_entry_bytes is 0: to switch the cache off write `enabled(false)`"));
        }
        self.near_cache.as_ref().map_or(Ok(()), NearCache::check)
    }

    fn check_durations(&self) -> Result<(), Error> {
        check_duration("ttl", self.ttl)?;
        self.not_found_ttl.map_or(Ok(()), |ttl| check_duration("not_found_ttl", ttl))?;
        self.stale_if_error.map_or(Ok(()), |tail| check_duration("stale_if_error", tail))?;
        check_duration("stale_retry", self.stale_retry)?;
        check_duration("lock_ttl", self.lock_ttl)?;
        check_duration("load_timeout", self.load_timeout)?;
        check_duration("wait_poll", self.wait_poll)?;
        check_duration("wait_timeout", self.wait_timeout)?;
        check_duration("update_timeout", self.update_timeout)
    }
}

/// The struct's attribute or the default, unless `ttl` is shorter.
fn default_not_found_ttl(schema: &Schema, ttl: Duration) -> Duration {
    let not_found_ttl = schema.not_found_ttl.unwrap_or(defaults::NOT_FOUND_TTL);
    if not_found_ttl < ttl { not_found_ttl } else { (ttl / 2).max(defaults::SHORTEST) }
}
