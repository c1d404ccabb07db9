//! The checked settings of a cache, and the lifetimes that follow from them.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tokio::sync::Semaphore;

use crate::defaults::{self, check_duration};
use crate::error::Error;
use crate::near::NearCache;
use crate::record::{Meta, Record, Schema};

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
    pub(super) stale_if_error: Option<Duration>,
    pub(super) stale_while_revalidate: Option<Duration>,
    pub(crate) soft_timeout: Duration,
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
}

/// The settings of a builder that have no value of their own until it is known which others were set.
#[derive(Default)]
pub(super) struct Given {
    pub(super) not_found_ttl: Option<Option<Duration>>,
    pub(super) load_timeout: Option<Duration>,
    pub(super) wait_timeout: Option<Duration>,
}

/// How long an entry lives, and the notes that are stored in it.
#[derive(Clone, Copy)]
pub(crate) struct Lifetime {
    pub(crate) ttl: Duration,
    pub(crate) meta: Meta,
}

impl Lifetime {
    /// With the stale tail.
    pub(crate) fn total(self) -> Duration {
        self.ttl + self.meta.stale.unwrap_or_default()
    }
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
            stale_while_revalidate: schema.stale_while_revalidate,
            soft_timeout: schema.soft_timeout.unwrap_or(defaults::SOFT_TIMEOUT),
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
        }
    }

    /// The TTL of a not-found entry that is stored now. `given`: the loader's word. `None` if it isn't stored.
    pub(super) fn ttl_of_not_found(&self, given: Option<Duration>) -> Option<Duration> {
        self.stored_for(given.or(self.not_found_ttl)?)
    }

    /// The TTL of a record that is stored now. `given`: the loader's word. `None` if that or `ttl_by` keeps it out of the cache.
    pub(crate) fn ttl_of(&self, record: &Record, given: Option<Duration>) -> Option<Duration> {
        let own = || self.ttl_by.as_ref().map_or(self.ttl, |ttl_by| ttl_by(record));
        self.stored_for(given.unwrap_or_else(own))
    }

    fn stored_for(&self, ttl: Duration) -> Option<Duration> {
        (ttl >= defaults::SHORTEST).then(|| self.jittered(ttl.min(defaults::LONGEST)))
    }

    /// How long a record is kept past its TTL. `given`: the loader's word.
    pub(super) fn stale_tail_by(&self, given: Option<Duration>) -> Option<Duration> {
        let tail = given.or_else(|| self.stale_tail())?;
        (tail >= defaults::SHORTEST).then(|| tail.min(defaults::LONGEST))
    }

    /// The longest time for which this cache serves a record past its TTL.
    pub(crate) fn stale_tail(&self) -> Option<Duration> {
        self.stale_if_error.max(self.stale_while_revalidate)
    }

    /// Whether a record that is so long past its TTL is served while it is loaded anew.
    pub(crate) fn revalidates(&self, age: Duration) -> bool {
        self.stale_while_revalidate.is_some_and(|window| age <= window)
    }

    /// Whether a record that is so long past its TTL is served once its load has failed.
    pub(crate) fn serves_after_failure(&self, age: Duration) -> bool {
        self.stale_tail().is_some_and(|window| age <= window)
    }

    pub(crate) fn serves_while_revalidating(&self) -> bool {
        self.stale_while_revalidate.is_some()
    }

    /// How long the mark of a load that has left nothing stays: long enough for all who wait for that load to see it.
    pub(crate) fn unstored_mark(&self) -> Duration {
        const LATE: Duration = Duration::from_millis(500);
        self.wait_poll * 2 + LATE
    }

    fn jittered(&self, ttl: Duration) -> Duration {
        let part = rand::rng().random_range(0.0..=self.jitter);
        ttl.mul_f64(1.0 - part).max(defaults::SHORTEST)
    }

    /// Completes the settings, and checks the range of each, and that no two settings contradict each other.
    pub(super) fn check(&mut self, schema: &Schema, given: &Given) -> Result<(), Error> {
        let ttl = self.ttl;
        if let Some(Some(given)) = given.not_found_ttl
            && given >= ttl
        {
            return Err(Error::config(format!("not_found_ttl is {given:?}: it must be less than ttl, {ttl:?}")));
        }
        self.not_found_ttl = given.not_found_ttl.unwrap_or_else(|| Some(default_not_found_ttl(schema, ttl)));
        if let (Some(load), Some(wait)) = (given.load_timeout, given.wait_timeout)
            && wait < load
        {
            return Err(Error::config(format!(
                "wait_timeout is {wait:?}: it must be at least load_timeout, {load:?}, or a load that takes long is made twice"
            )));
        }
        self.load_timeout = given.load_timeout.unwrap_or(defaults::LOAD_TIMEOUT);
        self.wait_timeout = given.wait_timeout.unwrap_or(self.load_timeout);
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
        self.stale_while_revalidate.map_or(Ok(()), |tail| check_duration("stale_while_revalidate", tail))?;
        if !self.soft_timeout.is_zero() {
            check_duration("soft_timeout", self.soft_timeout)?;
        }
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
