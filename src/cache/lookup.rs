//! A get from its caller's side: the hit, the flight, and going round again.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tracing::Instrument;

use crate::backend::check_runtime;
use crate::cache::Core;
use crate::cacheable::Cacheable;
use crate::entry::{Found, Reading};
use crate::error::{BoxError, Error};
use crate::flight::{Boarding, Ended, Landing, Origin, Stamp, Ticket};
use crate::id::CacheKey;
use crate::key::Key;
use crate::lease::ReadThrough;
use crate::load;
use crate::meter::Began;
use crate::proof::Guard;
use crate::refresh::Due;
use crate::spans;

/// A record, and how a [`lookup`](crate::Cache::lookup) came by it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Lookup<T> {
    /// The record; `None` when the primary has none.
    pub value: Option<Arc<T>>,
    /// How it was come by.
    pub outcome: Outcome,
    /// How long this call's own read of the cache took; zero when it joined a load that was under way.
    pub cache_latency: Duration,
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
    #[cfg(feature = "metrics")]
    pub(crate) const ALL: [Self; 7] = [
        Self::Hit,
        Self::NotFoundHit,
        Self::Loaded,
        Self::Coalesced,
        Self::Waited,
        Self::Bypassed,
        Self::Stale { age: Duration::ZERO },
    ];

    /// As metrics and spans call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::NotFoundHit => "not_found_hit",
            Self::Loaded => "loaded",
            Self::Coalesced => "coalesced",
            Self::Waited => "waited",
            Self::Bypassed => "bypassed",
            Self::Stale { .. } => "stale",
        }
    }
}

/// What a caller's own read of the cache came to, when it isn't the answer.
#[derive(Default)]
struct Miss {
    cache_latency: Duration,
    out_of_reach: Option<Error>,
}

impl<T: Cacheable> Core<T> {
    pub(super) async fn lookup<K, F, Fut, E>(self: &Arc<Self>, key: Key, id: K, loader: F) -> Result<Lookup<T>, Error>
    where
        K: CacheKey<T::Id>,
        F: FnOnce(T::Id) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Option<T>, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        let span = spans::get::<T>(&key);
        let found = self.find(key, id, loader).instrument(span.clone()).await;
        span.record("outcome", found.as_ref().map_or("error", |lookup| lookup.outcome.name()));
        found
    }

    async fn find<K, F, Fut, E>(self: &Arc<Self>, key: Key, id: K, loader: F) -> Result<Lookup<T>, Error>
    where
        K: CacheKey<T::Id>,
        F: FnOnce(T::Id) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Option<T>, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        let began = Began::now();
        let called = if self.backend.holds(Guard::StampRule) { Stamp::of_call() } else { Stamp::EARLIEST };
        let read_through = |key: Key| {
            let (core, id, loader) = (self.clone(), id.into_id(), load::erase(loader));
            ReadThrough { core, key, id, loader }
        };
        check_runtime()?;
        if !self.policy.enabled {
            let landing = read_through(key).around_cache().await;
            return self.landed(landing, Part::Started, Duration::ZERO, began);
        }
        let mut under_way = None;
        let miss = if self.backend.is_pending(&key) {
            Miss { cache_latency: Duration::ZERO, out_of_reach: Some(self.backend.pending_error(&key)) }
        } else {
            under_way = self.flights.join(&key);
            match under_way {
                Some(_) => Miss::default(),
                None => match self.look_first(&key, began).await {
                    ControlFlow::Break((found, due)) => {
                        if let Some(due) = due {
                            read_through(key).refresh_ahead(due);
                        }
                        return Ok(found);
                    }
                    ControlFlow::Continue(miss) => miss,
                },
            }
        };
        // Boxed, so that the future of a hit stays small.
        let (landing, part) = self.fly(called, key, under_way, miss.out_of_reach, read_through).boxed().await;
        self.landed(landing, part, miss.cache_latency, began)
    }

    /// Reads an entry, together with its lifetime where that matters: to this cache, or because the entry may be stale.
    pub(super) async fn found(&self, key: &Key) -> Result<Option<Found>, Error> {
        if !self.policy.reads_lifetimes() {
            match self.backend.read(key, &self.selection).await? {
                Some(entry) if entry.meta().stale.is_some() => {}
                entry => return Ok(entry.map(|entry| Found { entry, left: None })),
            }
        }
        self.backend.read_with_ttl(key, &self.selection).await
    }

    /// What an entry means that a caller has found.
    pub(crate) fn read(&self, key: &Key, found: Found) -> Reading<T> {
        let reading = found.read();
        if let Reading::Unreadable(cause) = &reading {
            self.stats.decode_errors.add();
            self.meter.decode_error();
            tracing::warn!(keys = key.prefix(), cause, "an entry is unreadable: it counts as a miss");
        }
        reading
    }

    /// Reads the cache, in the caller's own future: a hit needs nothing else, unless its record is due to be refreshed.
    async fn look_first(&self, key: &Key, began: Began) -> ControlFlow<(Lookup<T>, Option<Due>), Miss> {
        let looked = Instant::now();
        let found = self.found(key).await;
        let cache_latency = looked.elapsed();
        let found = match found {
            Ok(found) => found,
            Err(error) => return ControlFlow::Continue(Miss { cache_latency, out_of_reach: Some(error) }),
        };
        let due = self.policy.refresh_ahead.and_then(|beta| Due::draw(found.as_ref()?, beta));
        let (value, outcome) = match found.map(|found| self.read(key, found)) {
            Some(Reading::Record(record)) => (Some(Arc::new(record)), Outcome::Hit),
            Some(Reading::NotFound) => (None, Outcome::NotFoundHit),
            Some(Reading::Stale(..) | Reading::Unreadable(_)) | None => {
                return ControlFlow::Continue(Miss { cache_latency, out_of_reach: None });
            }
        };
        self.meter.got(Some(outcome), began);
        self.count(outcome);
        ControlFlow::Break((Lookup { value, outcome, cache_latency }, due))
    }

    /// Joins flights, or starts one, until one brings a result that is this call's too.
    async fn fly(
        &self,
        called: Stamp,
        key: Key,
        mut under_way: Option<Ticket<T>>,
        out_of_reach: Option<Error>,
        read_through: impl FnOnce(Key) -> ReadThrough<T>,
    ) -> (Landing<T>, Part) {
        // Nobody who can reach the cache has to wait for a load around it.
        let flights = if out_of_reach.is_some() { &self.bypasses } else { &self.flights };
        loop {
            let boarding = match under_way.take() {
                Some(ticket) => Boarding::Joined(ticket),
                None => flights.join_or_reserve(&key),
            };
            let mut ticket = match boarding {
                Boarding::Joined(ticket) => ticket,
                Boarding::Reserved(reservation) => {
                    let read_through = read_through(key.clone());
                    // Boxed each by itself, so that what waits for its turn to go around the cache takes little memory.
                    let mut ticket = reservation.start(async move {
                        match out_of_reach {
                            None => read_through.through_cache().boxed().await,
                            Some(error) => read_through.without_cache(error).boxed().await,
                        }
                    });
                    return match ticket.ended(called).await {
                        Ended::Landed(landing) => (landing, Part::Started),
                        Ended::TooOld | Ended::Lost => (Landing::lost(&key), Part::Started),
                    };
                }
            };
            match tokio::time::timeout(self.longest_flight(), ticket.ended(called)).await {
                Ok(Ended::Landed(landing)) => return (landing, Part::Joined),
                Ok(Ended::TooOld | Ended::Lost) => {}
                // Its runtime is alive, but nobody drives it.
                Err(_elapsed) => flights.expel_stuck(&key, &ticket),
            }
        }
    }

    /// How long a flight takes at most, if its runtime is driven.
    fn longest_flight(&self) -> Duration {
        const STEPS_BESIDE_WAITING_AND_LOADING: u32 = 6;
        let steps = self.backend.operation_timeout() * STEPS_BESIDE_WAITING_AND_LOADING;
        // It may wait for another process, and then for its turn.
        self.policy.wait_timeout * 2 + self.policy.load_timeout + steps
    }

    fn landed(
        &self,
        landing: Landing<T>,
        part: Part,
        cache_latency: Duration,
        began: Began,
    ) -> Result<Lookup<T>, Error> {
        let outcome = match (landing.origin, part) {
            (Origin::Entry, _) if matches!(landing.result, Ok(None)) => Outcome::NotFoundHit,
            (Origin::Entry, _) => Outcome::Hit,
            (Origin::OtherLoad, _) => Outcome::Waited,
            (Origin::Load, Part::Started) => Outcome::Loaded,
            (Origin::Load, Part::Joined) => Outcome::Coalesced,
            (Origin::Bypass, _) => Outcome::Bypassed,
            (Origin::Stale { age }, _) => Outcome::Stale { age },
        };
        self.meter.got(landing.result.is_ok().then_some(outcome), began);
        self.count(outcome);
        Ok(Lookup { value: landing.result?, outcome, cache_latency })
    }

    fn count(&self, outcome: Outcome) {
        let stats = &self.stats;
        match outcome {
            Outcome::Hit => stats.hits.add(),
            Outcome::NotFoundHit => stats.not_found_hits.add(),
            Outcome::Loaded => stats.misses.add(),
            Outcome::Coalesced | Outcome::Waited => {
                stats.misses.add();
                stats.stampedes_suppressed.add();
            }
            Outcome::Bypassed => stats.bypasses.add(),
            Outcome::Stale { .. } => {
                stats.misses.add();
                stats.stale_served.add();
            }
        }
    }
}

/// A caller's part in the flight that answered it.
#[derive(Clone, Copy)]
enum Part {
    Started,
    Joined,
}
