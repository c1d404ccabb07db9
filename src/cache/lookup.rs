//! A get from its caller's side: the hit, the flight, and going round again.

use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tracing::Instrument;

use crate::backend::{Selection, check_runtime};
use crate::cache::Core;
use crate::cacheable::Cacheable;
use crate::codec::FieldError;
use crate::entry::{self, Found, Reading};
use crate::error::{BoxError, Error};
use crate::flight::{self, Boarding, Flights, Landing, Stamp, Ticket};
use crate::id::CacheKey;
use crate::key::{Key, KeySpace};
use crate::lease::ReadThrough;
use crate::load;
use crate::meter::Began;
use crate::near::{self, Near};
use crate::projection::Projection;
use crate::proof::Guard;
use crate::record::{Hash, RecordReader};
use crate::refresh::Due;
use crate::spans;
use crate::spread::Handle;

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

/// What a get wants of a record.
pub(super) trait View<T: Cacheable>: Send + Sync {
    type Value: Send;

    fn selection<'a>(&'a self, core: &'a Core<T>) -> &'a Selection;
    /// Whether the caller wants to know how long the read of the cache took.
    fn is_timed(&self) -> bool {
        false
    }
    /// Whether it goes past the near cache.
    fn is_fresh(&self) -> bool {
        false
    }
    fn decode(&self, hash: &Hash) -> Result<Self::Value, FieldError>;
    fn of(&self, record: Arc<T>) -> Self::Value;
    /// The whole record, for the near cache; some fields alone are nothing to keep.
    fn record(&self, _value: &Self::Value) -> Option<Arc<T>> {
        None
    }
}

/// All of it.
#[derive(Default)]
pub(super) struct Whole {
    pub(super) is_timed: bool,
    pub(super) is_fresh: bool,
}

impl<T: Cacheable> View<T> for Whole {
    type Value = Arc<T>;

    fn selection<'a>(&'a self, core: &'a Core<T>) -> &'a Selection {
        &core.selection
    }

    fn is_timed(&self) -> bool {
        self.is_timed
    }

    fn is_fresh(&self) -> bool {
        self.is_fresh
    }

    fn decode(&self, hash: &Hash) -> Result<Arc<T>, FieldError> {
        entry::decode(hash).map(Arc::new)
    }

    fn of(&self, record: Arc<T>) -> Arc<T> {
        record
    }

    fn record(&self, record: &Arc<T>) -> Option<Arc<T>> {
        Some(record.clone())
    }
}

/// Some fields.
pub(super) struct Selected<P> {
    fields: P,
    selection: Selection,
}

impl<P> Selected<P> {
    pub(super) fn new<T: Cacheable>(fields: P) -> Self
    where
        P: Projection<T>,
    {
        let mut names = Vec::new();
        fields.add_names(&mut names);
        Self { fields, selection: Selection::with_id(names, &T::SCHEMA) }
    }
}

impl<T: Cacheable, P: Projection<T>> View<T> for Selected<P> {
    type Value = P::Values;

    fn selection<'a>(&'a self, _core: &'a Core<T>) -> &'a Selection {
        &self.selection
    }

    fn decode(&self, hash: &Hash) -> Result<P::Values, FieldError> {
        self.fields.decode(&mut RecordReader::new(hash, self.selection.names().unwrap_or_default()))
    }

    fn of(&self, record: Arc<T>) -> P::Values {
        self.fields.of(&record)
    }
}

/// The result of a get.
pub(super) struct Got<V> {
    pub(super) value: Option<V>,
    outcome: Outcome,
    cache_latency: Duration,
}

impl<T> From<Got<Arc<T>>> for Lookup<T> {
    fn from(Got { value, outcome, cache_latency }: Got<Arc<T>>) -> Self {
        Self { value, outcome, cache_latency }
    }
}

/// What a caller's own read of the cache came to: an answer, which may be due to be refreshed, or a miss.
pub(super) type Looked<V, T> = ControlFlow<(Got<V>, Option<Due>), Miss<T>>;

/// A near cache, and the right to keep in it what is about to be read.
type NearTicket<'a, T> = (&'a Near<T>, near::Ticket);

/// What a caller's own read of the cache came to, when it isn't the answer.
pub(super) struct Miss<T> {
    cache_latency: Duration,
    out_of_reach: Option<Error>,
    /// In place of a read.
    under_way: Option<Ticket<T>>,
}

impl<T: Cacheable> Core<T> {
    #[expect(clippy::manual_async_fn, reason = "an async fn's arguments take their memory twice")]
    pub(super) fn get<V, K, F, Fut, E, R>(
        core: Handle<Self>,
        view: V,
        id: K,
        loader: F,
        answer: impl FnOnce(Got<V::Value>) -> R + Send,
    ) -> impl Future<Output = Result<R, Error>> + Send
    where
        V: View<T>,
        K: CacheKey<T::Id>,
        F: FnOnce(T::Id) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Option<T>, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        async move {
            let began = Began::now();
            let kept = |near: &Near<T>| KeySpace::with_id(&id, |id| near.get(id)).flatten();
            if let Some(got) = core.near_hit(&view, kept, began) {
                return Ok(answer(got));
            }
            let key = core.keys.key(&id)?;
            let (called, span) = (core.stamp_of_call(), spans::get::<T>(&key));
            let read_through = |key: Key| {
                let (core, id, loader) = ((**core).clone(), id.into_id(), load::erase(loader));
                ReadThrough { core, key, id, loader, awaited: None }
            };
            // Boxed, so that the future of a hit stays small.
            let flight = if core.policy.enabled {
                let looked = {
                    // Pinned here, since a future that is passed on is copied as a whole.
                    let look = pin!(core.look_first(&view, &key, began));
                    look.instrument(span.clone()).await
                };
                match looked {
                    ControlFlow::Break((got, due)) => {
                        if let Some(due) = due {
                            span.in_scope(|| read_through(key).refresh_ahead(due));
                        }
                        span.record("outcome", got.outcome.name());
                        return Ok(answer(got));
                    }
                    ControlFlow::Continue(mut miss) => {
                        let boarding = core.board(&key, &mut miss);
                        core.fly(called, key, miss, boarding, began, read_through).boxed()
                    }
                }
            } else {
                core.get_around(read_through(key), began).boxed()
            };
            let lookup = flight.instrument(span.clone()).await;
            span.record("outcome", lookup.as_ref().map_or("error", |lookup| lookup.outcome.name()));
            let Lookup { value, outcome, cache_latency } = lookup?;
            Ok(answer(Got { value: value.map(|record| view.of(record)), outcome, cache_latency }))
        }
    }

    pub(super) fn stamp_of_call(&self) -> Stamp {
        if self.backend.holds(Guard::StampRule) { Stamp::of_call() } else { Stamp::EARLIEST }
    }

    /// Gets a record from its loader alone.
    pub(super) async fn get_around(&self, read_through: ReadThrough<T>, began: Began) -> Result<Lookup<T>, Error> {
        check_runtime()?;
        self.landed(read_through.around_cache().await, Duration::ZERO, began)
    }

    /// Looks into the near cache. Such a hit has no span: that would take longer.
    pub(super) fn near_hit<V: View<T>>(
        &self,
        view: &V,
        kept: impl FnOnce(&Near<T>) -> Option<Option<Arc<T>>>,
        began: Began,
    ) -> Option<Got<V::Value>> {
        let near = self.near.as_ref().filter(|_| !view.is_fresh())?;
        let value = kept(near)?.map(|record| view.of(record));
        let outcome = Outcome::NearHit;
        self.meter.got(outcome, true, began);
        Some(Got { value, outcome, cache_latency: Duration::ZERO })
    }

    /// The right to keep what is about to be read in the near cache.
    fn ticket(&self, key: &Key) -> Option<NearTicket<'_, T>> {
        let near = self.near.as_deref()?;
        let ticket = near.ticket(key);
        if ticket.is_none() {
            self.backend.track();
        }
        Some((near, ticket?))
    }

    /// Whether each read asks for the lifetime too.
    pub(super) fn reads_lifetimes(&self) -> bool {
        self.policy.reads_lifetimes() || self.near.is_some()
    }

    /// Reads an entry, together with its lifetime where that matters: to this cache, or because the entry may be stale.
    pub(super) async fn found(&self, key: &Key, selection: &Selection) -> Result<Option<Found>, Error> {
        let with_ttl = self.reads_lifetimes();
        let found = self.backend.read(key, selection, with_ttl).await?;
        if with_ttl || found.as_ref().is_none_or(|found| found.entry.meta().stale.is_none()) {
            return Ok(found);
        }
        self.backend.read(key, selection, true).await
    }

    /// What an entry means that a caller has found.
    pub(crate) fn read<V>(
        &self,
        key: &Key,
        found: &Found,
        decode: impl FnOnce(&Hash) -> Result<V, FieldError>,
    ) -> Reading<V> {
        let reading = found.read_by(decode);
        if let Reading::Unreadable(cause) = &reading {
            self.meter.counts.decode_errors.add();
            let keys = key.prefix();
            self.backend.repeats().warn(format!("unreadable {keys} {cause}"), |times| {
                tracing::warn!(keys, cause, times, "an entry is unreadable: it counts as a miss");
            });
        }
        reading
    }

    /// Reads the cache, in the caller's own future: a hit needs nothing else, unless its record is due to be refreshed.
    pub(super) async fn look_first<V: View<T>>(&self, view: &V, key: &Key, began: Began) -> Looked<V::Value, T> {
        let ticket = match self.may_read(key) {
            Ok(ticket) => ticket,
            Err(miss) => return ControlFlow::Continue(miss),
        };
        let looked = view.is_timed().then(Instant::now);
        let found = self.found(key, view.selection(self)).await;
        let cache_latency = looked.map(|looked| looked.elapsed()).unwrap_or_default();
        self.looked(view, key, ticket, found, cache_latency, began)
    }

    /// Whether a read of the cache may answer a get, and the right to keep what it finds in the near cache.
    pub(super) fn may_read(&self, key: &Key) -> Result<Option<NearTicket<'_, T>>, Miss<T>> {
        let miss = Miss { cache_latency: Duration::ZERO, out_of_reach: None, under_way: None };
        // Before the look at what is pending: a write that fails is that first, and only then makes tickets void.
        let ticket = self.ticket(key);
        if self.backend.is_pending(key) {
            return Err(Miss { out_of_reach: Some(self.backend.pending_error(key)), ..miss });
        }
        match self.flights.join(key) {
            Some(under_way) => Err(Miss { under_way: Some(under_way), ..miss }),
            None => Ok(ticket),
        }
    }

    /// What was found answers the get, or is a miss.
    pub(super) fn looked<V: View<T>>(
        &self,
        view: &V,
        key: &Key,
        ticket: Option<NearTicket<'_, T>>,
        found: Result<Option<Found>, Error>,
        cache_latency: Duration,
        began: Began,
    ) -> Looked<V::Value, T> {
        let missed = |out_of_reach| ControlFlow::Continue(Miss { cache_latency, out_of_reach, under_way: None });
        let found = match found {
            Ok(found) => found,
            Err(error) => return missed(Some(error)),
        };
        let keeping = ticket.and_then(|(near, ticket)| {
            let found = found.as_ref()?;
            Some((near, ticket, found.bytes(), found.ttl()))
        });
        let due = self.policy.refresh_ahead.and_then(|beta| Due::draw(found.as_ref()?, beta));
        let (value, outcome) = match found.as_ref().map(|found| self.read(key, found, |hash| view.decode(hash))) {
            Some(Reading::Record(value)) => (Some(value), Outcome::Hit),
            Some(Reading::NotFound) => (None, Outcome::NotFoundHit),
            Some(Reading::Stale(..) | Reading::Unreadable(_)) | None => return missed(None),
        };
        if let Some((near, ticket, bytes, ttl)) = keeping
            && let Some(record) = value.as_ref().map_or(Some(None), |value| view.record(value).map(Some))
        {
            near.keep(key, ticket, record, bytes, ttl);
        }
        self.meter.got(outcome, true, began);
        ControlFlow::Break((Got { value, outcome, cache_latency }, due))
    }

    /// Joins the flight that is under way, or reserves one.
    pub(super) fn board(&self, key: &Key, miss: &mut Miss<T>) -> Boarding<T> {
        match miss.under_way.take() {
            Some(ticket) => Boarding::Joined(ticket),
            None => self.flights_for(miss).join_or_reserve(key),
        }
    }

    /// Nobody who can reach the cache has to wait for a load around it.
    fn flights_for(&self, miss: &Miss<T>) -> &Arc<Flights<T>> {
        if miss.out_of_reach.is_some() { &self.bypasses } else { &self.flights }
    }

    /// Flies, and then again, until a flight brings a result that is this call's too.
    pub(super) async fn fly(
        &self,
        called: Stamp,
        key: Key,
        miss: Miss<T>,
        mut boarding: Boarding<T>,
        began: Began,
        read_through: impl FnOnce(Key) -> ReadThrough<T>,
    ) -> Result<Lookup<T>, Error> {
        check_runtime()?;
        let flights = self.flights_for(&miss);
        let landing = loop {
            let ticket = match boarding {
                Boarding::Joined(ticket) => ticket,
                Boarding::Reserved(reservation) => {
                    let read_through = read_through(key.clone());
                    let ticket = match miss.out_of_reach {
                        None => reservation.start(read_through.through_cache()),
                        Some(error) => reservation.start(read_through.without_cache(error)),
                    };
                    break flight::ended(&ticket, called).await.unwrap_or_else(|| Landing::lost(&key));
                }
            };
            match tokio::time::timeout(self.longest_flight(), flight::ended(&ticket, called)).await {
                Ok(Some(Landing { result, outcome: Outcome::Loaded, justified })) => {
                    break Landing { result, outcome: Outcome::Coalesced, justified };
                }
                Ok(Some(landing)) => break landing,
                Ok(None) => {}
                // Its runtime is alive, but nobody drives it.
                Err(_elapsed) => flights.expel_this(&key, &ticket),
            }
            boarding = flights.join_or_reserve(&key);
        };
        self.landed(landing, miss.cache_latency, began)
    }

    /// How long a flight takes at most, if its runtime is driven.
    fn longest_flight(&self) -> Duration {
        const STEPS_BESIDE_WAITING_AND_LOADING: u32 = 6;
        let steps = self.backend.operation_timeout() * STEPS_BESIDE_WAITING_AND_LOADING;
        // It may wait for another process, and then for its turn.
        self.policy.wait_timeout * 2 + self.policy.load_timeout + steps
    }

    fn landed(&self, landing: Landing<T>, cache_latency: Duration, began: Began) -> Result<Lookup<T>, Error> {
        let Landing { result, outcome, .. } = landing;
        self.meter.got(outcome, result.is_ok(), began);
        Ok(Lookup { value: result?, outcome, cache_latency })
    }
}
