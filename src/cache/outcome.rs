//! The result of a get, and where it came from: [`Lookup`] and [`Outcome`].

use std::sync::Arc;
use std::time::Duration;

use crate::backend::MayBeOld;
use crate::error::Error;
use crate::read::Answer;
use crate::record::{Cacheable, typed};

/// The result of a [`lookup`](crate::Cache::lookup): a record, and where it came from.
#[derive(Debug)]
#[non_exhaustive]
pub struct Lookup<T> {
    /// The record. `None` if the primary has none.
    pub value: Option<Arc<T>>,
    /// Where it came from.
    pub outcome: Outcome,
    /// How long this call's own read of Redis took. Zero for a near hit, and for a call that joined a load under way.
    pub cache_latency: Duration,
    /// What is left of the entry's TTL, for example for `Cache-Control: max-age`; also of a not-found entry. `None` if the
    /// record is stale, is not in the cache as far as this call knows, or comes from the [near cache](crate::NearCache), which
    /// doesn't know it.
    pub ttl: Option<Duration>,
}

#[cfg(feature = "testing")]
impl<T> Lookup<T> {
    /// Makes the result of a lookup, for tests of a service's own code. `cache_latency` is zero, and `ttl` is `None`: set these
    /// public fields if a test needs others.
    pub fn new(value: Option<Arc<T>>, outcome: Outcome) -> Self {
        Self { value, outcome, cache_latency: Duration::ZERO, ttl: None }
    }
}

impl<T: Cacheable> From<Answer> for Lookup<T> {
    fn from(Answer { record, outcome, cache_latency, ttl }: Answer) -> Self {
        Self { value: record.map(typed), outcome, cache_latency, ttl }
    }
}

impl<T> Clone for Lookup<T> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), ..*self }
    }
}

/// Where the record of a [`Lookup`] came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// A cached record.
    Hit,
    /// A cached not-found entry.
    NotFoundHit,
    /// The [near cache](crate::NearCache): a record or a not-found entry.
    NearHit,
    /// This call's own loader.
    Loaded,
    /// The loader of another call in this process.
    Coalesced,
    /// The load of another process.
    Waited,
    /// A loader, around the cache: because the cache was out of reach or disabled, because an invalidation of this record is
    /// [pending](crate::Cache::pending), because the id can't be part of a key, or because another process' load took too long.
    Bypassed,
    /// A cached record past its TTL, because its load failed, see [`stale_if_error`](crate::CacheBuilder::stale_if_error); or
    /// because its load takes longer than this get was to wait, see
    /// [`stale_while_revalidate`](crate::CacheBuilder::stale_while_revalidate).
    Stale {
        /// How long the record was past its TTL.
        age: Duration,
        /// Whether a load of the record is under way, in this process or another.
        revalidating: bool,
    },
}

impl Outcome {
    pub(crate) fn is_stale(self) -> bool {
        matches!(self, Self::Stale { .. })
    }
}

/// Why a get went around the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bypass {
    Disabled,
    Outage,
    /// An invalidation of the record is pending.
    Pending,
    InvalidId,
    /// Another process' load took too long.
    SlowLoad,
}

impl Bypass {
    /// Why, after this error of a step.
    pub(crate) fn because_of(error: &Error) -> Self {
        if error.downcast_ref::<MayBeOld>().is_some() { Self::Pending } else { Self::Outage }
    }
}
