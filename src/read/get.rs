//! One get, from the call to its answer: near cache, stored entry, and on a miss the flight that loads the record.
//!
//! The caller's own future looks into the near cache and reads the entry, so a hit costs nothing else. A miss joins the
//! flight of its key or leads one (`single_flight`), which loads and fills (`read_through`).

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::time::timeout;
use tracing::Instrument;

use super::loader::Loader;
use super::read_through::ReadThrough;
use super::refresh_ahead::Due;
use super::single_flight::{Flight, FlightResult, Role, Timestamp};
use crate::backend::{Selection, check_runtime};
use crate::cache::{Core, Outcome};
use crate::error::Error;
use crate::meter::Began;
use crate::near::{self, Near};
use crate::proof::Guard;
use crate::record::{FieldError, Found, Hash, IdParts, Key, KeySpace, Reading, Record};
use crate::spans;

/// The id and the loader of a get, without their types.
pub(crate) trait Request: Send {
    fn write_id(&mut self, out: &mut dyn IdParts) -> std::fmt::Result;
    /// Takes the loader. Called at most once.
    fn loader(&mut self) -> Loader;
}

/// The fields that a get wants when it doesn't want the whole record, without their types.
pub(crate) trait Fields: Send {
    fn selection(&self) -> &Selection;
    /// Decodes the fields, and keeps their values for the caller.
    fn decode(&mut self, hash: &Hash) -> Result<(), FieldError>;
}

/// What else sets one kind of get apart from another.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options {
    /// It goes past the near cache.
    pub(crate) is_fresh: bool,
    /// The caller wants to know how long the read of the cache took.
    pub(crate) is_timed: bool,
}

/// The answer to a get. `record` is `None` also where [`Fields`] keep what was decoded.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) record: Option<Record>,
    pub(crate) outcome: Outcome,
    pub(crate) cache_latency: Duration,
}

/// The result of a get's own read of the cache.
pub(super) enum Looked {
    /// The record may be due to be refreshed.
    Hit(Answer, Option<Due>),
    Missed(Miss, Duration),
}

/// Why a get has to load.
pub(super) enum Miss {
    NotCached,
    UnderWay(Flight),
    /// The cache can't be reached, or may be older than the primary.
    Unusable(Box<Error>),
}

/// One get that the near cache has not answered.
struct Get<'a> {
    core: &'a Arc<Core>,
    key: Key,
    request: &'a mut dyn Request,
    fields: Option<&'a mut dyn Fields>,
    options: Options,
    began: Began,
}

impl Get<'_> {
    /// Reads the entry, in the caller's own future.
    async fn look(&mut self) -> Looked {
        let ticket = match self.core.may_read(&self.key) {
            Ok(ticket) => ticket,
            Err(miss) => return Looked::Missed(miss, Duration::ZERO),
        };
        let looked = self.options.is_timed.then(Instant::now);
        let selection = self.fields.as_ref().map_or(&self.core.selection, |fields| fields.selection());
        let found = self.core.read_entry(&self.key, selection).await;
        let cache_latency = looked.map(|looked| looked.elapsed()).unwrap_or_default();
        let fields = self.fields.as_mut().map(|fields| &mut **fields as &mut dyn Fields);
        self.core.looked(&self.key, fields, ticket, found, cache_latency, self.began)
    }

    async fn load(&mut self, called: Timestamp, miss: Miss, cache_latency: Duration) -> Result<Answer, Error> {
        let (core, key, began) = (self.core, self.key.clone(), self.began);
        let (role, unusable) = miss.role(core, &key);
        core.load(called, key, role, unusable, cache_latency, began, || self.read_through()).await
    }

    fn read_through(&mut self) -> ReadThrough {
        ReadThrough { core: self.core.clone(), key: self.key.clone(), loader: self.request.loader(), awaited: None }
    }
}

/// A near cache, and the right to keep in it what is about to be read.
type NearTicket<'a> = (&'a Near, near::Ticket);

impl Core {
    #[expect(clippy::manual_async_fn, reason = "an async fn's arguments take their memory twice")]
    pub(crate) fn get<'a>(
        self: &'a Arc<Self>,
        request: &'a mut dyn Request,
        fields: Option<&'a mut dyn Fields>,
        options: Options,
    ) -> impl Future<Output = Result<Answer, Error>> + Send + use<'a> {
        async move {
            if !options.is_fresh
                && let Some(answer) = self.near_hit(request)
            {
                return Ok(answer);
            }
            let began = Began::now();
            let key = self.keys.key_by(&mut |out| request.write_id(out))?;
            let (called, span) = (self.timestamp_of_call(), spans::get(self.shape, &key));
            let mut get = Get { core: self, key, request, fields, options, began };
            let looked = if self.policy.enabled {
                // Pinned: a future that is passed on by value is copied as a whole.
                let look = pin!(get.look());
                Some(look.instrument(span.clone()).await)
            } else {
                None
            };
            let answered = match looked {
                Some(Looked::Hit(answer, due)) => {
                    if let Some(due) = due {
                        span.in_scope(|| get.read_through().refresh_ahead(due));
                    }
                    Ok(answer)
                }
                // Boxed, so that the future of a hit stays small.
                Some(Looked::Missed(miss, latency)) => {
                    get.load(called, miss, latency).boxed().instrument(span.clone()).await
                }
                None => self.get_around(get.read_through(), began).boxed().instrument(span.clone()).await,
            };
            span.record("outcome", answered.as_ref().map_or("error", |answer| answer.outcome.name()));
            answered
        }
    }

    /// Invalidates the record, and then gets it.
    pub(crate) async fn refresh(self: &Arc<Self>, request: &mut dyn Request) -> Result<Answer, Error> {
        let key = self.keys.key_by(&mut |out| request.write_id(out))?;
        self.invalidate(key).await?;
        self.get(request, None, Options { is_fresh: true, ..Options::default() }).await
    }

    /// Looks into the near cache. Such a hit has no span: that would take longer.
    pub(crate) fn near_hit(&self, request: &mut dyn Request) -> Option<Answer> {
        let near = self.near.as_deref()?;
        let began = Began::now();
        let kept = KeySpace::with_id(&mut |out| request.write_id(out), |id| near.get(id)).flatten()?;
        Some(self.near_answer(kept, began))
    }

    pub(super) fn near_answer(&self, record: Option<Record>, began: Began) -> Answer {
        self.meter.got(Outcome::NearHit, true, began);
        Answer { record, outcome: Outcome::NearHit, cache_latency: Duration::ZERO }
    }

    /// Whether a read of the cache may answer a get, and the right to keep what it finds in the near cache.
    pub(super) fn may_read(&self, key: &Key) -> Result<Option<NearTicket<'_>>, Miss> {
        // Before `is_pending`: a write that fails is first recorded as pending, and only then makes tickets void.
        let ticket = self.near_ticket(key);
        if self.backend.is_pending(key) {
            return Err(Miss::Unusable(Box::new(self.backend.pending_error(key))));
        }
        match self.flights.join(key) {
            Some(flight) => Err(Miss::UnderWay(flight)),
            None => Ok(ticket),
        }
    }

    fn near_ticket(&self, key: &Key) -> Option<NearTicket<'_>> {
        let near = self.near.as_deref()?;
        let ticket = near.ticket(key);
        if ticket.is_none() {
            self.backend.track();
        }
        Some((near, ticket?))
    }

    /// Reads an entry, together with its lifetime where that matters: to this cache, or because the entry may be stale.
    pub(crate) async fn read_entry(&self, key: &Key, selection: &Selection) -> Result<Option<Found>, Error> {
        let with_ttl = self.reads_lifetimes();
        let found = self.backend.read(key, selection, with_ttl).await?;
        if with_ttl || found.as_ref().is_none_or(|found| found.entry.meta().stale.is_none()) {
            return Ok(found);
        }
        // Boxed, as it is rare.
        self.backend.read(key, selection, true).boxed().await
    }

    /// Whether each read asks for the lifetime too.
    pub(super) fn reads_lifetimes(&self) -> bool {
        self.policy.reads_lifetimes() || self.near.is_some()
    }

    /// Decides whether what was found answers the get.
    pub(super) fn looked(
        &self,
        key: &Key,
        fields: Option<&mut dyn Fields>,
        ticket: Option<NearTicket<'_>>,
        found: Result<Option<Found>, Error>,
        cache_latency: Duration,
        began: Began,
    ) -> Looked {
        let found = match found {
            Ok(Some(found)) => found,
            Ok(None) => return Looked::Missed(Miss::NotCached, cache_latency),
            Err(error) => return Looked::Missed(Miss::Unusable(Box::new(error)), cache_latency),
        };
        let is_whole = fields.is_none();
        let mut bytes = 0;
        let reading = match fields {
            None => self.read_by(key, &found, |hash| {
                let (record, takes) = self.shape.decode_weighed(hash)?;
                bytes = takes;
                Ok(Some(record))
            }),
            Some(fields) => self.read_by(key, &found, |hash| fields.decode(hash).map(|()| None)),
        };
        let (record, outcome) = match reading {
            Reading::Record(record) => (record, Outcome::Hit),
            Reading::NotFound => (None, Outcome::NotFoundHit),
            Reading::Stale(..) | Reading::Unreadable(_) => return Looked::Missed(Miss::NotCached, cache_latency),
        };
        if let Some((near, ticket)) = ticket
            && (is_whole || outcome == Outcome::NotFoundHit)
        {
            near.keep(key, ticket, record.clone(), bytes, found.ttl());
        }
        let due = self.policy.refresh_ahead.and_then(|beta| Due::draw(&found, beta));
        self.meter.got(outcome, true, began);
        Looked::Hit(Answer { record, outcome, cache_latency }, due)
    }

    /// What a found entry means, as a whole record.
    pub(crate) fn read(&self, key: &Key, found: &Found) -> Reading<Record> {
        self.read_by(key, found, |hash| self.shape.decode(hash))
    }

    fn read_by<V>(&self, key: &Key, found: &Found, decode: impl FnOnce(&Hash) -> Result<V, FieldError>) -> Reading<V> {
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

    /// Leads a flight or follows others, until one has a result that this call may take.
    #[expect(clippy::too_many_arguments, reason = "`get` and `get_many` come here with all that they know")]
    pub(super) async fn load(
        &self,
        called: Timestamp,
        key: Key,
        mut role: Role,
        unusable: Option<Box<Error>>,
        cache_latency: Duration,
        began: Began,
        read_through: impl FnOnce() -> ReadThrough,
    ) -> Result<Answer, Error> {
        check_runtime()?;
        // Loads around the cache have flights of their own, so that callers who can reach it never wait for one.
        let flights = if unusable.is_some() { &self.bypasses } else { &self.flights };
        let result = loop {
            match role {
                Role::Leader(leader) => {
                    let read_through = read_through();
                    let flight = match unusable {
                        None => leader.start(read_through.through_cache()),
                        Some(error) => leader.start(read_through.without_cache(*error)),
                    };
                    break flight.result_for(called).await.unwrap_or_else(|| FlightResult::lost(&key));
                }
                Role::Follower(flight) => match timeout(self.longest_flight(), flight.result_for(called)).await {
                    Ok(Some(result)) if result.outcome == Outcome::Loaded => {
                        break FlightResult { outcome: Outcome::Coalesced, ..result };
                    }
                    Ok(Some(result)) => break result,
                    Ok(None) => {}
                    // Its runtime is alive, but nobody drives it.
                    Err(_elapsed) => flights.forget_this(&key, &flight),
                },
            }
            role = flights.join_or_lead(&key);
        };
        self.loaded(result, cache_latency, began)
    }

    /// Loads in a cache that is not enabled.
    pub(super) async fn get_around(&self, read_through: ReadThrough, began: Began) -> Result<Answer, Error> {
        check_runtime()?;
        self.loaded(read_through.around_cache().await, Duration::ZERO, began)
    }

    fn loaded(&self, result: FlightResult, cache_latency: Duration, began: Began) -> Result<Answer, Error> {
        let FlightResult { record, outcome, .. } = result;
        self.meter.got(outcome, record.is_ok(), began);
        Ok(Answer { record: record?, outcome, cache_latency })
    }

    /// How long a flight takes at most, if its runtime is driven.
    fn longest_flight(&self) -> Duration {
        const STEPS_BESIDE_WAITING_AND_LOADING: u32 = 6;
        let steps = self.backend.operation_timeout() * STEPS_BESIDE_WAITING_AND_LOADING;
        // It may wait for another process, and then for its turn.
        self.policy.wait_timeout * 2 + self.policy.load_timeout + steps
    }

    pub(super) fn timestamp_of_call(&self) -> Timestamp {
        if self.backend.holds(Guard::TimestampRule) { Timestamp::of_call() } else { Timestamp::EARLIEST }
    }
}

impl Miss {
    /// The caller's part in the flight of its key, and why that can't use the cache.
    pub(super) fn role(self, core: &Core, key: &Key) -> (Role, Option<Box<Error>>) {
        match self {
            Self::NotCached => (core.flights.join_or_lead(key), None),
            Self::UnderWay(flight) => (Role::Follower(flight), None),
            Self::Unusable(error) => (core.bypasses.join_or_lead(key), Some(error)),
        }
    }
}
