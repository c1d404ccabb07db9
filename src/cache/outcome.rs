//! The result of a get, and where it came from: [`Lookup`] and [`Outcome`].

use std::sync::Arc;
use std::time::Duration;

use crate::read::Answer;
use crate::record::{Cacheable, typed};

/// A record, and how a [`lookup`](crate::Cache::lookup) came by it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Lookup<T> {
    /// The record; `None` when the primary has none.
    pub value: Option<Arc<T>>,
    /// How it was come by.
    pub outcome: Outcome,
    /// How long this call's own read of Redis took; zero when it joined a load that was under way, and for a near hit.
    pub cache_latency: Duration,
}

impl<T: Cacheable> From<Answer> for Lookup<T> {
    fn from(Answer { record, outcome, cache_latency }: Answer) -> Self {
        Self { value: record.map(typed), outcome, cache_latency }
    }
}

impl<T> Clone for Lookup<T> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), ..*self }
    }
}

/// How a [`Lookup`] came by its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// From a cached record.
    Hit,
    /// From an entry that notes that there is no such record.
    NotFoundHit,
    /// From the [near cache](crate::NearCache): a record, or that there is none.
    NearHit,
    /// From this call's own loader.
    Loaded,
    /// From the loader of another call in this process.
    Coalesced,
    /// From the load of another process.
    Waited,
    /// From a loader, around the cache: it was out of reach, disabled, or could not be told of a write to this record yet;
    /// or another process' load took too long.
    Bypassed,
    /// From a cached record past its TTL, because its load failed: see
    /// [`stale_if_error`](crate::CacheBuilder::stale_if_error).
    Stale {
        /// How long it was past its TTL.
        age: Duration,
    },
}

impl Outcome {
    /// As metrics and spans call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::NotFoundHit => "not_found_hit",
            Self::NearHit => "near_hit",
            Self::Loaded => "loaded",
            Self::Coalesced => "coalesced",
            Self::Waited => "waited",
            Self::Bypassed => "bypassed",
            Self::Stale { .. } => "stale",
        }
    }
}
