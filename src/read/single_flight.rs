//! Single flight: all callers of one key in this process share one load, and the timestamp rule that keeps it honest.
//!
//! Owns the map of flights and the process' logical clock. A flight runs in a task of its own, so it outlives its callers.
//! Knows nothing of backends: the work of a flight is a future that it is given.
//!
//! *The timestamp rule.* A caller may share a flight's result only if that can't be older than the call. So each call takes
//! a timestamp when it starts, and a flight takes one just before each step that may justify its result: a call accepts the
//! result only if it started before that. Otherwise an `invalidate` may have returned in between, and the call joins or
//! leads another flight. It keeps its first timestamp, so that the next flight's result is right for it whenever it joins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use futures_util::FutureExt;
use futures_util::future::select_all;
use tokio::sync::SetOnce;
use tokio::time::timeout;
use tracing::Instrument;

use super::nested::Load;
use crate::cache::{Bypass, Outcome};
use crate::error::Error;
use crate::record::{Key, Record};

/// The logical clock, which all flights of the process advance.
static CLOCK: AtomicU64 = AtomicU64::new(0);

/// A point in the order of calls and steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timestamp(u64);

impl Timestamp {
    /// For a call that started before all steps.
    pub(crate) const EARLIEST: Self = Self(0);

    /// For a call that starts now.
    pub(crate) fn of_call() -> Self {
        Self(CLOCK.load(Ordering::SeqCst))
    }

    /// For a step that a flight is about to take.
    pub(crate) fn of_step() -> Self {
        Self(CLOCK.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

/// The result of a flight, for its leader and all followers.
#[derive(Debug, Clone)]
pub(crate) struct FlightResult {
    pub(crate) record: Result<Option<Record>, Error>,
    /// The leader's outcome.
    pub(crate) outcome: Outcome,
    /// Why the load went around the cache, if it did.
    pub(crate) bypass: Option<Bypass>,
    /// Whether a fill was accepted, also of nothing.
    pub(crate) is_stored: bool,
    /// Whether the load has left nothing to store.
    pub(crate) left_nothing: bool,
    /// How long the entry will live, without its stale tail.
    pub(crate) ttl: Option<Duration>,
    /// When the step that justifies the record began. An error needs no justification.
    pub(crate) justified: Timestamp,
}

impl FlightResult {
    pub(crate) fn new(record: Result<Option<Record>, Error>, outcome: Outcome, justified: Timestamp) -> Self {
        Self { record, outcome, bypass: None, is_stored: false, left_nothing: false, ttl: None, justified }
    }

    pub(crate) fn bypassed(record: Result<Option<Record>, Error>, why: Bypass, justified: Timestamp) -> Self {
        Self { bypass: Some(why), ..Self::new(record, Outcome::Bypassed, justified) }
    }

    pub(crate) fn failed(error: Error) -> Self {
        Self::new(Err(error), Outcome::Loaded, Timestamp::of_call())
    }

    /// The leader's result if the task of its flight ended without one.
    pub(crate) fn lost(key: &Key) -> Self {
        let message = "the load ended without a result, as when its runtime shuts down".to_owned();
        Self::failed(Error::LoadPanicked { key: key.to_string(), message })
    }
}

/// A flight: under way, or about to be.
#[derive(Clone)]
pub(crate) struct Flight(Arc<State>);

struct State {
    /// Set once the flight has ended, to `None` if it ended without a result.
    result: SetOnce<Option<FlightResult>>,
    has_started: AtomicBool,
    load: Arc<Load>,
}

impl Flight {
    fn new(load: Arc<Load>) -> Self {
        Self(Arc::new(State { result: SetOnce::new(), has_started: AtomicBool::new(false), load }))
    }

    /// Waits for the end, for a call that started at `called`. `None` if there is no result, or it may be older than the
    /// call. Dropping this future leaves the flight under way.
    pub(crate) async fn result_for(&self, called: Timestamp) -> Option<FlightResult> {
        let result = self.0.result.wait().await.as_ref()?;
        (result.record.is_err() || called < result.justified).then(|| result.clone())
    }

    pub(crate) fn load(&self) -> &Arc<Load> {
        &self.0.load
    }

    /// Whether the flight has ended, and its load has left nothing to store.
    pub(crate) fn has_left_nothing(&self) -> bool {
        self.0.result.get().and_then(Option::as_ref).is_some_and(|result| result.left_nothing)
    }

    async fn end(&self) {
        self.0.result.wait().await;
    }
}

/// A caller's part in the flight of its key.
pub(crate) enum Role {
    Leader(Leader),
    Follower(Flight),
}

impl Role {
    fn load(&self) -> &Arc<Load> {
        match self {
            Self::Leader(leader) => leader.load(),
            Self::Follower(flight) => flight.load(),
        }
    }
}

/// What a caller needs of the flight that it joins or leads.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Need {
    Result,
    /// It has a stale record, and wants it to be loaded anew.
    Load,
}

/// The flights of one cache.
#[derive(Default)]
pub(crate) struct Flights {
    by_key: DashMap<Key, OfKey>,
    /// The number of keys in the map: a hit reads this instead of locking the map.
    count: AtomicUsize,
}

/// The flights of one key. At most two of them load at the same time, however often the key is invalidated meanwhile.
#[derive(Default)]
struct OfKey {
    /// The flight that calls join.
    newest: Option<Flight>,
    /// Flights whose lease an invalidation has revoked, the oldest first.
    overtaken: Vec<Flight>,
}

const OVERTAKEN_AT_ONCE: usize = 1;

impl Flights {
    /// Joins the flight of a key, if one is under way, by a caller that needs its result.
    pub(crate) fn join(&self, key: &Key) -> Option<Flight> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let flights = self.by_key.get(key)?;
        let flight = flights.newest.as_ref()?;
        flight.load().need();
        Some(flight.clone())
    }

    /// Joins the flight of a key, or leads a new one, whose load `begin` makes. With an overtaken flight and one more under way,
    /// the new flight starts once one of them has ended. `need`: whether the caller needs its result.
    pub(crate) fn join_or_lead(self: &Arc<Self>, key: &Key, need: Need, begin: impl FnOnce() -> Arc<Load>) -> Role {
        let mut flights = self.by_key.entry(key.clone()).or_insert_with(|| {
            // Before the insertion, so that the count is never less than the keys in the map.
            self.count.fetch_add(1, Ordering::Relaxed);
            OfKey::default()
        });
        let role = match &flights.newest {
            Some(flight) => Role::Follower(flight.clone()),
            None => self.lead(key, &mut flights, begin),
        };
        if need == Need::Result {
            // Under the lock of the map, so that a flight that leaves it knows whether anyone needs it.
            role.load().need();
        }
        role
    }

    fn lead(self: &Arc<Self>, key: &Key, flights: &mut OfKey, begin: impl FnOnce() -> Arc<Load>) -> Role {
        let flight = Flight::new(begin());
        flights.newest = Some(flight.clone());
        let has_to_wait = flights.overtaken.len() > OVERTAKEN_AT_ONCE;
        let behind = if has_to_wait { flights.overtaken.clone() } else { Vec::new() };
        Role::Leader(Leader { flights: self.clone(), key: key.clone(), flight, behind, result: None })
    }

    /// Lets no more calls join the flight of a key. Its followers stay. A flight that has not started is not overtaken: all that
    /// it does comes later.
    pub(crate) fn overtake(&self, key: &Key) {
        if let Some(mut flights) = self.by_key.get_mut(key) {
            flights.overtake();
        }
    }

    /// Lets no more calls join the flights of any key, as `overtake` does.
    pub(crate) fn overtake_all(&self) {
        self.by_key.iter_mut().for_each(|mut flights| flights.overtake());
    }

    /// Takes the flight of a load out of the map.
    pub(crate) fn forget(&self, key: &Key, load: &Arc<Load>) {
        let is_it = |flight: &Flight| Arc::ptr_eq(flight.load(), load);
        let is_last = |flights: &mut OfKey| {
            flights.newest.take_if(|newest| is_it(newest));
            flights.overtaken.retain(|overtaken| !is_it(overtaken));
            flights.newest.is_none() && flights.overtaken.is_empty()
        };
        if self.by_key.remove_if_mut(key, |_, flights| is_last(flights)).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[cfg(feature = "__proof")]
    pub(crate) fn count(&self) -> usize {
        self.by_key.iter().map(|flights| flights.overtaken.len() + usize::from(flights.newest.is_some())).sum()
    }
}

impl OfKey {
    fn overtake(&mut self) {
        let started = self.newest.take_if(|flight| flight.0.has_started.load(Ordering::SeqCst));
        self.overtaken.extend(started);
    }
}

/// The right to start a flight, which others may have joined already. Dropping it ends the flight, so followers are woken
/// also when the task panics or goes away with its runtime.
pub(crate) struct Leader {
    flights: Arc<Flights>,
    key: Key,
    flight: Flight,
    /// The flights of which one has to end first.
    behind: Vec<Flight>,
    result: Option<FlightResult>,
}

impl Leader {
    /// The load of this flight.
    pub(crate) fn load(&self) -> &Arc<Load> {
        self.flight.load()
    }

    /// Starts the flight in a task of its own, within the caller's tracing span. Flights that this one has to wait for are
    /// given up after `patience`: nobody may drive their runtime.
    pub(crate) fn start(self, patience: Duration, work: impl Future<Output = FlightResult> + Send + 'static) -> Flight {
        let flight = self.flight.clone();
        if !self.has_to_wait() {
            self.started();
            tokio::spawn(work.map(|result| self.end(result)).in_current_span());
        } else {
            let work = async move {
                self.wait_for_turn(patience).await;
                self.started();
                self.end(work.await);
            };
            tokio::spawn(work.in_current_span());
        }
        flight
    }

    /// Whether it has to wait for another flight of the key to end.
    pub(crate) fn has_to_wait(&self) -> bool {
        !self.behind.is_empty()
    }

    fn started(&self) {
        self.flight.0.has_started.store(true, Ordering::SeqCst);
    }

    async fn wait_for_turn(&self, patience: Duration) {
        let ended = select_all(self.behind.iter().map(|flight| flight.end().boxed()));
        if timeout(patience, ended).await.is_err() {
            self.behind.iter().for_each(|flight| self.flights.forget(&self.key, flight.load()));
        }
    }

    fn end(mut self, result: FlightResult) {
        self.result = Some(result);
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        // Out of the map before the followers wake, so that nobody joins a flight that has ended.
        self.flights.forget(&self.key, self.flight.load());
        // It can't have been set: the leader alone does that.
        let _ = self.flight.0.result.set(self.result.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{KeySpace, Schema};

    const PATIENCE: Duration = Duration::from_secs(60);

    impl Flights {
        fn is_empty(&self) -> bool {
            self.by_key.is_empty() && self.count.load(Ordering::Relaxed) == 0
        }
    }

    fn key() -> Key {
        KeySpace::new("", None, &Schema::new("thing")).key::<u64>(&1).unwrap()
    }

    fn lead(flights: &Arc<Flights>) -> Leader {
        match flights.join_or_lead(&key(), Need::Result, || Load::begin(0, 0, Some(key()))) {
            Role::Leader(leader) => leader,
            Role::Follower(_) => panic!("a flight is under way"),
        }
    }

    /// Starts a flight that takes its timestamp at once, and ends when the sender says so.
    async fn flight(
        flights: &Arc<Flights>,
        record: Result<Option<Record>, Error>,
    ) -> (Flight, tokio::sync::oneshot::Sender<()>) {
        let (end, may_end) = tokio::sync::oneshot::channel();
        let (began, has_begun) = tokio::sync::oneshot::channel();
        let flight = lead(flights).start(PATIENCE, async move {
            let justified = Timestamp::of_step();
            began.send(()).unwrap();
            may_end.await.unwrap();
            FlightResult::new(record, Outcome::Loaded, justified)
        });
        has_begun.await.unwrap();
        (flight, end)
    }

    #[tokio::test]
    async fn a_result_is_for_calls_from_before_the_step_that_justifies_it() {
        let (flights, early) = (Arc::<Flights>::default(), Timestamp::of_call());
        let (led, end) = flight(&flights, Ok(Some(Arc::new(1)))).await;
        let (late, joined_late) = (Timestamp::of_call(), flights.join(&key()).unwrap());
        let joined_by_early = flights.join(&key()).unwrap();
        end.send(()).unwrap();
        assert!(led.result_for(early).await.is_some());
        assert!(joined_late.result_for(late).await.is_none());
        assert!(joined_by_early.result_for(early).await.is_some(), "it joined late, but called early");
        assert!(flights.is_empty(), "a flight that has ended is gone");
    }

    #[tokio::test]
    async fn an_error_is_for_all_who_joined() {
        let (flights, early) = (Arc::<Flights>::default(), Timestamp::of_call());
        let (led, end) = flight(&flights, Err(Error::config("failed"))).await;
        let (late, joined_late) = (Timestamp::of_call(), flights.join(&key()).unwrap());
        end.send(()).unwrap();
        assert!(led.result_for(early).await.unwrap().record.is_err());
        assert!(joined_late.result_for(late).await.unwrap().record.is_err());
    }

    #[tokio::test]
    async fn a_flight_without_a_result_leaves_the_map() {
        let (flights, called) = (Arc::<Flights>::default(), Timestamp::of_call());
        let unused = lead(&flights);
        let joined = flights.join(&key()).unwrap();
        drop(unused);
        assert!(joined.result_for(called).await.is_none());
        let panicking = lead(&flights).start(PATIENCE, async { panic!("on purpose") });
        assert!(panicking.result_for(called).await.is_none());
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn nobody_joins_an_overtaken_flight_and_its_followers_still_get_its_result() {
        let (flights, called) = (Arc::<Flights>::default(), Timestamp::of_call());
        let (overtaken, end) = flight(&flights, Ok(None)).await;
        flights.overtake(&key());
        assert!(flights.join(&key()).is_none());
        let next = lead(&flights);
        end.send(()).unwrap();
        assert!(overtaken.result_for(called).await.is_some());
        assert!(flights.join(&key()).is_some(), "the next one stays in the map");
        drop(next);
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn a_third_flight_of_a_key_starts_once_one_of_the_others_has_ended() {
        let (flights, called) = (Arc::<Flights>::default(), Timestamp::of_call());
        let (_first, end_first) = flight(&flights, Ok(None)).await;
        flights.overtake(&key());
        let (second, end_second) = flight(&flights, Ok(None)).await;
        flights.overtake(&key());
        let (began, mut has_begun) = tokio::sync::oneshot::channel();
        let third = lead(&flights).start(PATIENCE, async move {
            began.send(()).unwrap();
            FlightResult::new(Ok(None), Outcome::Loaded, Timestamp::of_step())
        });
        // It has not started, so an invalidation doesn't overtake it, and later calls join it.
        tokio::task::yield_now().await;
        flights.overtake(&key());
        assert!(Arc::ptr_eq(flights.join(&key()).unwrap().load(), third.load()));
        assert!(has_begun.try_recv().is_err(), "two are under way");
        end_second.send(()).unwrap();
        assert!(third.result_for(called).await.is_some());
        assert!(second.result_for(called).await.is_some());
        end_first.send(()).unwrap();
    }
}
