//! One get, from the call to its answer: near cache, stored entry, and on a miss the flight that loads the record.
//!
//! The typed face calls `Core::near_hit` and then `Core::get`, which reads the entry. Both run in the caller's own future, so a
//! hit costs nothing else. A miss leads the flight of its key or joins it (`single_flight`), which loads and fills
//! (`read_through`). So does a get that finds a stale record which may be served while it is loaded anew; it waits for the
//! flight for `soft_timeout` at most.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::time::timeout;
use tracing::{Instrument, Span};

use super::batch::Awaited;
use super::loader::Loader;
use super::nested::Load;
use super::read_through::ReadThrough;
use super::refresh_ahead::Due;
use super::single_flight::{Flight, FlightResult, Flights, Need, Role, Timestamp};
use crate::backend::check_runtime;
use crate::cache::{Bypass, Core, Outcome};
use crate::error::Error;
use crate::metrics::{Stopwatch, spans};
use crate::near::{Near, ReadEpoch};
use crate::proof::Guard;
use crate::record::{FieldError, Found, Hash, IdParts, InvalidId, Key, KeySpace, Reading, Record, Selection, WriteId};

/// The id and the loader of a get, with their types erased.
pub(crate) trait Request: Send {
    fn write_id(&mut self, out: &mut dyn IdParts) -> std::fmt::Result;
    /// Takes the loader. Called at most once, with the key of the id.
    fn loader(&mut self, key: &Key) -> Loader;
}

/// The fields of a get that doesn't read the whole record, with their types erased.
pub(crate) trait Fields: Send {
    fn selection(&self) -> &Selection;
    /// Decodes the fields, and keeps their values for the caller.
    fn decode(&mut self, hash: &Hash) -> Result<(), FieldError>;
}

/// The answer to a get. `record` is `None` also if [`Fields`] keeps the decoded values.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) record: Option<Record>,
    pub(crate) outcome: Outcome,
    pub(crate) cache_latency: Duration,
    pub(crate) ttl: Option<Duration>,
}

impl Answer {
    /// A near hit.
    pub(crate) fn near(record: Option<Record>) -> Self {
        Self { record, outcome: Outcome::NearHit, cache_latency: Duration::ZERO, ttl: None }
    }
}

/// The result of a get's own read of the cache.
pub(super) enum Looked {
    /// An answer, and the refresh of its record if one is due.
    Hit(Answer, Option<Due>),
    /// A stale record that may be served while it is loaded anew, and the key's epoch from before the read.
    Stale(Answer, Option<u64>),
    Missed(Miss, Duration),
}

/// Why a get has to load.
pub(super) enum Miss {
    NotCached,
    UnderWay(Flight),
    Unusable(Box<Error>, Bypass),
}

/// The state of near caches before a read of the cache is sent.
#[derive(Clone, Copy)]
pub(super) struct BeforeRead<'a> {
    /// The near cache that may keep the result.
    near: Option<(&'a Near, ReadEpoch)>,
    epoch: Option<u64>,
}

/// A get's part in the flight of its key, and why that flight can't use the cache.
type Joined = (Role, Option<(Box<Error>, Bypass)>);

/// One get that the near cache has not answered.
#[derive(Clone, Copy)]
pub(super) struct Get<'a> {
    pub(super) core: &'a Arc<Core>,
    pub(super) key: &'a Key,
    pub(super) called: Timestamp,
    pub(super) began: Stopwatch,
}

impl Core {
    /// Gets a record that the caller has not found in the near cache, or must not take from there. `is_lookup`: whether to
    /// measure the read of the cache, and to read the TTL.
    #[expect(clippy::manual_async_fn, reason = "an async fn's arguments take their memory twice")]
    pub(crate) fn get<'a>(
        self: &'a Arc<Self>,
        request: &'a mut dyn Request,
        fields: Option<&'a mut dyn Fields>,
        is_lookup: bool,
    ) -> impl Future<Output = Result<Answer, Error>> + Send + use<'a> {
        async move {
            let began = Stopwatch::start();
            let key = match self.keys.key_by(&mut |out| request.write_id(out)) {
                Ok(key) => key,
                // Boxed, so that the future of a hit stays small.
                Err(invalid) => return self.get_invalid(invalid, request).boxed().await,
            };
            let get = Get { core: self, key: &key, called: self.timestamp_of_call(), began };
            let span = spans::get(self.shape, &key);
            let looked = if self.is_enabled() {
                // Pinned: a future that is passed on by value is copied as a whole.
                let look = pin!(get.look(fields, is_lookup));
                Some(look.instrument(span.clone()).await)
            } else {
                None
            };
            let mut read_through = |load| get.read_through(request.loader(&key), load, None);
            let answered = match looked {
                Some(Looked::Hit(answer, due)) => {
                    if let Some(due) = due {
                        span.in_scope(|| read_through(get.begin_load()).refresh_ahead(due));
                    }
                    Ok(answer)
                }
                // Boxed, so that the future of a hit stays small.
                Some(Looked::Stale(answer, epoch)) => {
                    get.revalidate(get.join_stale(), answer, epoch, read_through).boxed().instrument(span.clone()).await
                }
                Some(Looked::Missed(miss, latency)) => {
                    get.load(get.join(miss), latency, read_through).boxed().instrument(span.clone()).await
                }
                None => get.load_around(read_through).boxed().instrument(span.clone()).await,
            };
            record_outcome(&span, &answered);
            answered
        }
    }

    /// Gets a record whose id can't be part of a key: it is loaded around the cache.
    async fn get_invalid(self: &Arc<Self>, invalid: InvalidId, request: &mut dyn Request) -> Result<Answer, Error> {
        let (key, error) = self.report_invalid_id(invalid)?;
        let get = Get { core: self, key: &key, called: self.timestamp_of_call(), began: Stopwatch::start() };
        let read_through = |load| get.read_through(request.loader(&key), load, None);
        let span = spans::get(self.shape, &key);
        let load = async {
            if !self.is_enabled() {
                return get.load_around(read_through).await;
            }
            let joined = get.join(Miss::Unusable(Box::new(error), Bypass::InvalidId));
            get.load(joined, Duration::ZERO, read_through).await
        };
        let answered = load.instrument(span.clone()).await;
        record_outcome(&span, &answered);
        answered
    }

    /// Looks into the near cache. Such a hit has no span, which would take longer than the hit.
    ///
    /// It returns as little as it can: each move of an [`Answer`] takes time that shows here.
    pub(crate) fn near_hit(&self, write_id: WriteId<'_>) -> Option<Option<Record>> {
        let near = self.near.as_deref().filter(|_| self.is_enabled())?;
        let began = Stopwatch::start();
        let kept = KeySpace::with_id(write_id, |id| near.get(id));
        if kept.is_some() {
            self.metrics.got(Outcome::NearHit, true, began);
        }
        kept
    }

    /// Reads an entry, with its lifetime if this cache needs it or if the entry may be stale.
    pub(crate) async fn read_entry(
        &self,
        key: &Key,
        selection: &Selection,
        with_ttl: bool,
    ) -> Result<Option<Found>, Error> {
        let with_ttl = with_ttl || self.reads_lifetimes();
        let found = self.backend.read(key, selection, with_ttl).await?;
        if with_ttl || found.as_ref().is_none_or(|found| found.entry.meta().stale.is_none()) {
            return Ok(found);
        }
        // Boxed, as it is rare.
        self.backend.read(key, selection, true).boxed().await
    }

    /// Whether every read asks for the lifetime too.
    pub(super) fn reads_lifetimes(&self) -> bool {
        self.policy.stale_tail().is_some() || self.policy.refresh_ahead.is_some() || self.near.is_some()
    }

    /// Counts and logs an entry that turned out to be unreadable.
    pub(crate) fn report_unreadable<V>(&self, key: &Key, reading: &Reading<V>) {
        if let Reading::Unreadable(cause) = reading {
            self.metrics.counts.decode_errors.add();
            let keys = key.prefix();
            self.backend.repeats().warn(format!("unreadable {keys} {cause}"), |times| {
                tracing::warn!(keys, cause, times, "an entry is unreadable: it counts as a miss");
            });
        }
    }

    /// How long a flight takes at most, if its runtime is driven.
    pub(super) fn longest_flight(&self) -> Duration {
        const STEPS_BESIDE_WAITING_AND_LOADING: u32 = 6;
        let steps = self.backend.operation_timeout() * STEPS_BESIDE_WAITING_AND_LOADING;
        // It may wait for another process, and then for its turn.
        let longest = self.policy.wait_timeout * 2 + self.policy.load_timeout + steps;
        // And before all that for a flight that was overtaken.
        longest * 2
    }

    /// A load of a key, or of many.
    pub(super) fn begin_load(self: &Arc<Self>, key: Option<Key>) -> Arc<Load> {
        Load::begin(Arc::as_ptr(self).addr(), self.backend.identity(), key)
    }

    pub(super) fn timestamp_of_call(&self) -> Timestamp {
        if self.backend.enforces(Guard::TimestampRule) { Timestamp::of_call() } else { Timestamp::EARLIEST }
    }
}

pub(super) fn record_outcome(span: &Span, answered: &Result<Answer, Error>) {
    span.record("outcome", answered.as_ref().map_or("error", |answer| answer.outcome.name()));
}

impl<'a> Get<'a> {
    /// Reads the entry, in the caller's own future.
    #[expect(clippy::manual_async_fn, reason = "an async fn's arguments take their memory twice")]
    fn look(&self, fields: Option<&mut (dyn Fields + '_)>, is_lookup: bool) -> impl Future<Output = Looked> + Send {
        async move {
            let before = match self.may_read() {
                Ok(before) => before,
                Err(miss) => return Looked::Missed(miss, Duration::ZERO),
            };
            let sent = is_lookup.then(Instant::now);
            let selection = fields.as_ref().map_or(&self.core.selection, |fields| fields.selection());
            let found = self.core.read_entry(self.key, selection, is_lookup).await;
            let cache_latency = sent.map(|sent| sent.elapsed()).unwrap_or_default();
            self.looked(fields, before, found, cache_latency)
        }
    }

    /// Whether a read of the cache may answer this get.
    pub(super) fn may_read(&self) -> Result<BeforeRead<'a>, Miss> {
        let backend = &self.core.backend;
        // Before `is_pending`: a write that fails is first recorded as pending, and only then advances the epoch.
        let near = self.near_read();
        let revalidates = self.core.policy.serves_while_revalidating();
        let before = BeforeRead { near, epoch: if revalidates { backend.key_epoch(self.key) } else { None } };
        if backend.is_pending(self.key) {
            return Err(Miss::Unusable(Box::new(backend.pending_error(self.key)), Bypass::Pending));
        }
        // A stale record may be served only by a get that has read it itself.
        if revalidates && backend.enforces(Guard::OwnRead) {
            return Ok(before);
        }
        self.core.flights.join(self.key).map_or(Ok(before), |flight| Err(Miss::UnderWay(flight)))
    }

    fn near_read(&self) -> Option<(&'a Near, ReadEpoch)> {
        let near = self.core.near.as_deref()?;
        let epoch = near.read_epoch(self.key);
        if epoch.is_none() {
            self.core.backend.track();
        }
        Some((near, epoch?))
    }

    /// Decides whether the entry that was read answers this get.
    pub(super) fn looked(
        &self,
        fields: Option<&mut (dyn Fields + '_)>,
        before: BeforeRead<'_>,
        found: Result<Option<Found>, Error>,
        cache_latency: Duration,
    ) -> Looked {
        let near_read = before.near;
        let core = self.core;
        let found = match found {
            Ok(Some(found)) => found,
            Ok(None) => return Looked::Missed(Miss::NotCached, cache_latency),
            Err(error) => {
                let why = Bypass::because_of(&error);
                return Looked::Missed(Miss::Unusable(Box::new(error), why), cache_latency);
            }
        };
        let reading = match fields {
            None if near_read.is_some() => {
                found.read_by(|hash| core.shape.decode_weighed(hash).map(|(record, bytes)| (Some(record), bytes)))
            }
            None => found.read_by(|hash| core.shape.decode(hash).map(|record| (Some(record), 0))),
            Some(fields) => found.read_by(|hash| fields.decode(hash).map(|()| (None, 0))),
        };
        core.report_unreadable(self.key, &reading);
        let ((record, bytes), outcome) = match reading {
            Reading::Record(read) => (read, Outcome::Hit),
            Reading::NotFound => ((None, 0), Outcome::NotFoundHit),
            Reading::Stale((record, _), age) if core.policy.revalidates(age) => {
                let revalidating = !core.pauses.has(self.key);
                let outcome = Outcome::Stale { age, revalidating };
                let answer = Answer { record, outcome, cache_latency, ttl: None };
                if revalidating {
                    return Looked::Stale(answer, before.epoch);
                }
                core.metrics.got(outcome, true, self.began);
                return Looked::Hit(answer, None);
            }
            // Whether any other stale record is served is decided by the flight, under the lease or after a failed load.
            Reading::Stale(..) | Reading::Unreadable(_) => return Looked::Missed(Miss::NotCached, cache_latency),
        };
        // Some fields alone are not kept.
        if let Some((near, epoch)) = near_read
            && (record.is_some() || outcome == Outcome::NotFoundHit)
        {
            near.keep(self.key, epoch, record.clone(), bytes, found.ttl());
        }
        let due = core.policy.refresh_ahead.and_then(|beta| Due::draw(&found, beta));
        core.metrics.got(outcome, true, self.began);
        Looked::Hit(Answer { record, outcome, cache_latency, ttl: found.ttl() }, due)
    }

    /// Takes part in the flight of the key.
    pub(super) fn join(&self, miss: Miss) -> Joined {
        match miss {
            Miss::NotCached => (self.join_or_lead(&self.core.flights), None),
            Miss::UnderWay(flight) => (Role::Follower(flight), None),
            // Loads around the cache have flights of their own, so that callers who can reach it never wait for one.
            Miss::Unusable(error, why) => (self.join_or_lead(&self.core.bypasses), Some((error, why))),
        }
    }

    pub(super) fn join_or_lead(&self, flights: &Arc<Flights>) -> Role {
        flights.join_or_lead(self.key, Need::Result, || self.begin_load())
    }

    pub(super) fn begin_load(&self) -> Arc<Load> {
        self.core.begin_load(Some(self.key.clone()))
    }

    pub(super) fn read_through(&self, loader: Loader, load: Arc<Load>, awaited: Option<Awaited>) -> ReadThrough {
        ReadThrough { core: self.core.clone(), key: self.key.clone(), loader, load, awaited, has_waited: false }
    }

    /// Leads a flight or follows others, until one has a result that this get may take.
    pub(super) async fn load(
        self,
        (mut role, unusable): Joined,
        cache_latency: Duration,
        read_through: impl FnOnce(Arc<Load>) -> ReadThrough,
    ) -> Result<Answer, Error> {
        check_runtime()?;
        let Self { core, key, called, .. } = self;
        let flights = if unusable.is_some() { &core.bypasses } else { &core.flights };
        let (patience, mut has_waited) = (core.longest_flight(), false);
        let result = loop {
            match role {
                Role::Leader(leader) => {
                    let _waiting = leader.load().wait()?;
                    let mut read_through = read_through(leader.load().clone());
                    read_through.has_waited = has_waited;
                    if leader.has_to_wait() {
                        // Others in its batch need not wait too.
                        read_through.awaited = None;
                    }
                    let flight = match unusable {
                        None => leader.start(patience, read_through.through_cache()),
                        Some((error, why)) => leader.start(patience, read_through.without_cache(*error, why)),
                    };
                    break flight.result_for(called).await.unwrap_or_else(|| FlightResult::lost(key));
                }
                Role::Follower(flight) => {
                    #[cfg(feature = "__proof")]
                    if !core.backend.enforces(Guard::OwnRead)
                        && let Some(record) = flight.load().seen_by_leader.get()
                    {
                        let stale = Outcome::Stale { age: Duration::ZERO, revalidating: true };
                        break FlightResult::new(Ok(Some(record.clone())), stale, Timestamp::of_step());
                    }
                    match self.follow(&flight, flights).await? {
                        Some(result) => break result,
                        None => has_waited |= flight.has_left_nothing(),
                    }
                }
            }
            role = self.join_or_lead(flights);
        };
        self.loaded(result, cache_latency)
    }

    /// Waits for a flight that somebody else leads. `None` if it has no result that this get may take.
    pub(super) async fn follow(&self, flight: &Flight, flights: &Flights) -> Result<Option<FlightResult>, Error> {
        let _waiting = flight.load().wait()?;
        match timeout(self.core.longest_flight(), flight.result_for(self.called)).await {
            Ok(result) => Ok(result.map(coalesced)),
            Err(_elapsed) => {
                // Its runtime is alive, but nobody drives it.
                flights.forget(self.key, flight.load());
                Ok(None)
            }
        }
    }

    /// Loads in a cache that is not enabled.
    pub(super) async fn load_around(
        self,
        read_through: impl FnOnce(Arc<Load>) -> ReadThrough,
    ) -> Result<Answer, Error> {
        check_runtime()?;
        let load = self.begin_load();
        let _waiting = load.wait()?;
        self.loaded(read_through(load).around_cache(Bypass::Disabled).await, Duration::ZERO)
    }

    pub(super) fn loaded(&self, result: FlightResult, cache_latency: Duration) -> Result<Answer, Error> {
        let FlightResult { record, outcome, bypass, ttl, .. } = result;
        self.core.metrics.got(outcome, record.is_ok(), self.began);
        if let Some(why) = bypass {
            if record.is_ok() {
                self.core.metrics.bypassed(why);
            }
            Span::current().record("reason", why.name());
        }
        Ok(Answer { record: record?, outcome, cache_latency, ttl })
    }
}

/// The result of a flight for a follower.
pub(super) fn coalesced(result: FlightResult) -> FlightResult {
    match result.outcome {
        Outcome::Loaded => FlightResult { outcome: Outcome::Coalesced, ..result },
        _ => result,
    }
}
