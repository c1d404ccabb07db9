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
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use futures_util::FutureExt;
use tokio::sync::SetOnce;
use tracing::Instrument;

use crate::cache::Outcome;
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
    /// When the step that justifies the record began. An error needs no justification.
    pub(crate) justified: Timestamp,
}

impl FlightResult {
    /// The leader's result if the task of its flight ended without one.
    pub(crate) fn lost(key: &Key) -> Self {
        let message = "the load ended without a result, as when its runtime shuts down".to_owned();
        let record = Err(Error::LoadPanicked { key: key.to_string(), message });
        Self { record, outcome: Outcome::Loaded, justified: Timestamp::of_call() }
    }
}

/// A flight that is under way: set once it has ended, to `None` if its task ended without a result.
#[derive(Clone, Default)]
pub(crate) struct Flight(Arc<SetOnce<Option<FlightResult>>>);

impl Flight {
    /// Waits for the end, for a call that started at `called`. `None` if there is no result, or it may be older than the
    /// call. Dropping this future leaves the flight under way.
    pub(crate) async fn result_for(&self, called: Timestamp) -> Option<FlightResult> {
        let result = self.0.wait().await.as_ref()?;
        (result.record.is_err() || called < result.justified).then(|| result.clone())
    }
}

/// A caller's part in the flight of its key.
pub(crate) enum Role {
    Leader(Leader),
    Follower(Flight),
}

/// The flights of one cache.
#[derive(Default)]
pub(crate) struct Flights {
    running: DashMap<Key, Flight>,
    /// The number of flights in the map: a hit reads this instead of locking the map.
    count: AtomicUsize,
}

impl Flights {
    /// Joins the flight of a key, if one is under way.
    pub(crate) fn join(&self, key: &Key) -> Option<Flight> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.running.get(key).map(|flight| flight.clone())
    }

    /// Joins the flight of a key, or leads a new one.
    pub(crate) fn join_or_lead(self: &Arc<Self>, key: &Key) -> Role {
        match self.running.entry(key.clone()) {
            Slot::Occupied(running) => Role::Follower(running.get().clone()),
            Slot::Vacant(slot) => {
                let flight = Flight::default();
                // Before the insertion, so that the count is never less than the flights in the map.
                self.count.fetch_add(1, Ordering::Relaxed);
                slot.insert(flight.clone());
                Role::Leader(Leader { flights: self.clone(), key: key.clone(), flight, result: None })
            }
        }
    }

    /// Takes the flight of a key out of the map: its followers stay, and nobody joins it any more.
    pub(crate) fn forget(&self, key: &Key) {
        self.forget_if(key, |_| true);
    }

    /// Like `forget`, but only if it is this flight.
    pub(crate) fn forget_this(&self, key: &Key, flight: &Flight) {
        self.forget_if(key, |running| Arc::ptr_eq(&running.0, &flight.0));
    }

    /// Takes all flights out of the map, as `forget` does.
    pub(crate) fn forget_all(&self) {
        self.running.retain(|_, _| {
            self.count.fetch_sub(1, Ordering::Relaxed);
            false
        });
    }

    fn forget_if(&self, key: &Key, is_it: impl FnOnce(&Flight) -> bool) {
        if self.running.remove_if(key, |_, running| is_it(running)).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[cfg(feature = "__proof")]
    pub(crate) fn count(&self) -> usize {
        self.running.len()
    }
}

/// The right to start a flight, which others may have joined already. Dropping it ends the flight, so followers are woken
/// also when the task panics or goes away with its runtime.
pub(crate) struct Leader {
    flights: Arc<Flights>,
    key: Key,
    flight: Flight,
    result: Option<FlightResult>,
}

impl Leader {
    /// Starts the flight in a task of its own, within the caller's tracing span.
    pub(crate) fn start(self, work: impl Future<Output = FlightResult> + Send + 'static) -> Flight {
        let flight = self.flight.clone();
        tokio::spawn(work.map(|result| self.end(result)).in_current_span());
        flight
    }

    fn end(mut self, result: FlightResult) {
        self.result = Some(result);
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        // Out of the map before the followers wake, so that nobody joins a flight that has ended.
        self.flights.forget_this(&self.key, &self.flight);
        // It can't have been set: the leader alone does that.
        let _ = self.flight.0.set(self.result.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{KeySpace, Schema};

    impl Flights {
        fn is_empty(&self) -> bool {
            self.running.is_empty() && self.count.load(Ordering::Relaxed) == 0
        }
    }

    fn key() -> Key {
        KeySpace::new(None, &Schema::new("thing")).key::<u64>(&1).unwrap()
    }

    fn lead(flights: &Arc<Flights>) -> Leader {
        match flights.join_or_lead(&key()) {
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
        let flight = lead(flights).start(async move {
            let justified = Timestamp::of_step();
            began.send(()).unwrap();
            may_end.await.unwrap();
            FlightResult { record, outcome: Outcome::Loaded, justified }
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
        let panicking = lead(&flights).start(async { panic!("on purpose") });
        assert!(panicking.result_for(called).await.is_none());
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn nobody_joins_a_forgotten_flight_and_its_followers_still_get_its_result() {
        let (flights, called) = (Arc::<Flights>::default(), Timestamp::of_call());
        let (forgotten, end) = flight(&flights, Ok(None)).await;
        flights.forget(&key());
        assert!(flights.join(&key()).is_none());
        let next = lead(&flights);
        end.send(()).unwrap();
        assert!(forgotten.result_for(called).await.is_some());
        assert!(flights.join(&key()).is_some(), "the next one stays in the map");
        flights.forget_this(&key(), &forgotten);
        assert!(flights.join(&key()).is_some(), "it is another");
        drop(next);
    }
}
