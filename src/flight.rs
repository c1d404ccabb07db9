//! Single flight: all callers of one key in this process share one load, and the stamp rule that keeps it honest.
//!
//! Owns the map of flights and the clock of stamps. A flight runs in a task of its own, so that no caller's end is the
//! flight's end. Knows nothing of backends: what a flight does is a future that it is given.
//!
//! *The stamp rule.* Joining a flight is only right while what it will bring can't be older than the call. So a call is
//! stamped when it starts, and a flight takes a stamp just before each step that may justify its result: a call takes
//! the result only if it started before that. Otherwise an `invalidate` may have returned in between, and the call goes
//! round again. It keeps its first stamp, so the next flight's result is right for it, whenever it joins that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use futures_util::FutureExt;
use tokio::sync::SetOnce;
use tracing::Instrument;

use crate::error::Error;
use crate::key::Key;

/// The clock that all flights of the process advance.
static CLOCK: AtomicU64 = AtomicU64::new(0);

/// A point in the order of calls and steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp(u64);

impl Stamp {
    /// The stamp of a call that started before everything.
    pub(crate) const EARLIEST: Self = Self(0);

    /// The stamp of a call that starts now.
    pub(crate) fn of_call() -> Self {
        Self(CLOCK.load(Ordering::SeqCst))
    }

    /// The stamp of a step that a flight is about to take.
    pub(crate) fn of_step() -> Self {
        Self(CLOCK.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

/// Where a flight's value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An entry that was there when the flight first looked.
    Entry,
    /// An entry that another process' load put there while the flight waited.
    OtherLoad,
    /// The flight's own load, under a lease.
    Load,
    /// A load around the cache.
    Bypass,
    /// An entry that is past its TTL by `age`, in place of a load that failed.
    Stale { age: Duration },
}

/// What a flight brings to those who joined it.
#[derive(Debug)]
pub(crate) struct Landing<T> {
    pub(crate) result: Result<Option<Arc<T>>, Error>,
    pub(crate) origin: Origin,
    /// The step that justifies a value. An error needs no justification.
    pub(crate) justified: Stamp,
}

impl<T> Landing<T> {
    /// What is left to say to the one who started a flight that ended without a result.
    pub(crate) fn lost(key: &Key) -> Self {
        let message = "the load ended without a result, as when its runtime shuts down".to_owned();
        let result = Err(Error::LoadPanicked { key: key.to_string(), message });
        Self { result, origin: Origin::Load, justified: Stamp::of_call() }
    }
}

impl<T> Clone for Landing<T> {
    fn clone(&self) -> Self {
        Self { result: self.result.clone(), ..*self }
    }
}

/// The flights of one cache.
pub(crate) struct Flights<T> {
    running: Arc<Running<T>>,
}

struct Running<T> {
    flights: DashMap<Key, Signal<T>>,
    /// How many there are: hits look here first.
    number: AtomicUsize,
}

impl<T> Running<T> {
    fn remove(&self, key: &Key, signal: &Signal<T>) {
        self.remove_if(key, |running| Arc::ptr_eq(running, signal));
    }

    fn remove_if(&self, key: &Key, is_it: impl FnOnce(&Signal<T>) -> bool) {
        if self.flights.remove_if(key, |_, running| is_it(running)).is_some() {
            self.number.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Set once the flight has ended; without a landing it was lost.
type Signal<T> = Arc<SetOnce<Option<Landing<T>>>>;

/// A caller's place in a flight.
pub(crate) struct Ticket<T> {
    signal: Signal<T>,
}

/// How a flight ended for one caller.
pub(crate) enum Ended<T> {
    /// With a result that is the caller's too.
    Landed(Landing<T>),
    /// With a result that may be older than the call.
    TooOld,
    /// Without a result: it panicked, or its runtime shut down.
    Lost,
}

impl<T: Send + Sync + 'static> Flights<T> {
    pub(crate) fn new() -> Self {
        Self { running: Arc::new(Running { flights: DashMap::new(), number: AtomicUsize::new(0) }) }
    }

    /// Joins the flight of a key, if one is under way.
    pub(crate) fn join(&self, key: &Key) -> Option<Ticket<T>> {
        if self.running.number.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let running = self.running.flights.get(key)?;
        Some(Ticket { signal: running.clone() })
    }

    /// Takes the flight of a key out of the map: those who are in it stay, and nobody joins it any more.
    pub(crate) fn expel(&self, key: &Key) {
        self.running.remove_if(key, |_| true);
    }

    /// Takes a flight that does not end out of the map.
    pub(crate) fn expel_stuck(&self, key: &Key, stuck: &Ticket<T>) {
        self.running.remove(key, &stuck.signal);
    }

    #[cfg(feature = "__proof")]
    pub(crate) fn count(&self) -> usize {
        self.running.flights.len()
    }

    /// Joins the flight of a key, or reserves the start of one.
    pub(crate) fn join_or_reserve(&self, key: &Key) -> Boarding<T> {
        match self.running.flights.entry(key.clone()) {
            Slot::Occupied(running) => Boarding::Joined(Ticket { signal: running.get().clone() }),
            Slot::Vacant(slot) => {
                let signal = Signal::default();
                // First the number: so it never falls below what is there.
                self.running.number.fetch_add(1, Ordering::Relaxed);
                slot.insert(signal.clone());
                let (running, key) = (self.running.clone(), key.clone());
                Boarding::Reserved(Reservation { departure: Departure { running, key, signal, landing: None } })
            }
        }
    }
}

/// What a caller gets who wants to fly.
pub(crate) enum Boarding<T> {
    Joined(Ticket<T>),
    Reserved(Reservation<T>),
}

/// The right to start a flight, which others may have joined already.
pub(crate) struct Reservation<T> {
    departure: Departure<T>,
}

impl<T: Send + Sync + 'static> Reservation<T> {
    /// Starts the flight in a task of its own, with the caller's tracing span.
    pub(crate) fn start(self, flight: impl Future<Output = Landing<T>> + Send + 'static) -> Ticket<T> {
        let Self { departure } = self;
        let ticket = Ticket { signal: departure.signal.clone() };
        tokio::spawn(flight.map(|landing| departure.land(landing)).in_current_span());
        ticket
    }
}

/// Ends a flight, however its task does: that may also panic, or go with its runtime.
struct Departure<T> {
    running: Arc<Running<T>>,
    key: Key,
    signal: Signal<T>,
    landing: Option<Landing<T>>,
}

impl<T> Departure<T> {
    fn land(mut self, landing: Landing<T>) {
        self.landing = Some(landing);
    }
}

impl<T> Drop for Departure<T> {
    fn drop(&mut self) {
        // First out of the map, then the news: nobody can join a flight that has ended.
        self.running.remove(&self.key, &self.signal);
        // Nobody else sets it.
        let _ = self.signal.set(self.landing.take());
    }
}

impl<T> Ticket<T> {
    /// Waits for the flight to end, for a call that started at `called`. Dropping this future leaves the flight under way.
    pub(crate) async fn ended(&self, called: Stamp) -> Ended<T> {
        match self.signal.wait().await {
            None => Ended::Lost,
            Some(landing) if landing.result.is_err() || called < landing.justified => Ended::Landed(landing.clone()),
            Some(_) => Ended::TooOld,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cacheable::Schema;
    use crate::key::KeySpace;

    impl Flights<u32> {
        fn is_empty(&self) -> bool {
            self.running.flights.is_empty() && self.running.number.load(Ordering::Relaxed) == 0
        }
    }

    fn key() -> Key {
        KeySpace::new(None, &Schema::new("thing")).key::<u64>(&1).unwrap()
    }

    fn landing(result: Result<Option<Arc<u32>>, Error>, justified: Stamp) -> Landing<u32> {
        Landing { result, origin: Origin::Load, justified }
    }

    /// Starts a flight that takes its stamp at once, and lands when it is told to.
    async fn stamped_flight(
        flights: &Flights<u32>,
        result: Result<Option<Arc<u32>>, Error>,
    ) -> (Ticket<u32>, tokio::sync::oneshot::Sender<()>) {
        let Boarding::Reserved(reservation) = flights.join_or_reserve(&key()) else { panic!("a flight is under way") };
        let (land, told) = tokio::sync::oneshot::channel();
        let (stamped, is_stamped) = tokio::sync::oneshot::channel();
        let ticket = reservation.start(async move {
            let justified = Stamp::of_step();
            stamped.send(()).unwrap();
            told.await.unwrap();
            landing(result, justified)
        });
        is_stamped.await.unwrap();
        (ticket, land)
    }

    #[tokio::test]
    async fn a_result_is_for_calls_from_before_the_step_that_justifies_it() {
        let (flights, early) = (Flights::new(), Stamp::of_call());
        let (ticket, land) = stamped_flight(&flights, Ok(Some(Arc::new(1)))).await;
        let (late, late_ticket) = (Stamp::of_call(), flights.join(&key()).unwrap());
        let early_ticket = flights.join(&key()).unwrap();
        land.send(()).unwrap();
        assert!(matches!(ticket.ended(early).await, Ended::Landed(_)));
        assert!(matches!(late_ticket.ended(late).await, Ended::TooOld));
        assert!(matches!(early_ticket.ended(early).await, Ended::Landed(_)), "it joined late, but called early");
        assert!(flights.is_empty(), "a flight that has landed is gone");
    }

    #[tokio::test]
    async fn an_error_is_for_all_who_joined() {
        let (flights, early) = (Flights::new(), Stamp::of_call());
        let (ticket, land) = stamped_flight(&flights, Err(Error::config("failed"))).await;
        let (late, late_ticket) = (Stamp::of_call(), flights.join(&key()).unwrap());
        land.send(()).unwrap();
        assert!(matches!(ticket.ended(early).await, Ended::Landed(Landing { result: Err(_), .. })));
        assert!(matches!(late_ticket.ended(late).await, Ended::Landed(Landing { result: Err(_), .. })));
    }

    #[tokio::test]
    async fn a_flight_that_is_lost_leaves_the_map() {
        let (flights, called) = (Flights::<u32>::new(), Stamp::of_call());
        let Boarding::Reserved(unused) = flights.join_or_reserve(&key()) else { panic!("a flight is under way") };
        let joined = flights.join(&key()).unwrap();
        drop(unused);
        assert!(matches!(joined.ended(called).await, Ended::Lost));
        let Boarding::Reserved(panicking) = flights.join_or_reserve(&key()) else { panic!("a flight is under way") };
        let ticket = panicking.start(async { panic!("on purpose") });
        assert!(matches!(ticket.ended(called).await, Ended::Lost));
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn nobody_joins_a_flight_that_was_expelled_and_it_still_lands() {
        let (flights, called) = (Flights::new(), Stamp::of_call());
        let (ticket, land) = stamped_flight(&flights, Ok(None)).await;
        flights.expel(&key());
        assert!(flights.join(&key()).is_none());
        let Boarding::Reserved(next) = flights.join_or_reserve(&key()) else { panic!("a flight is under way") };
        land.send(()).unwrap();
        assert!(matches!(ticket.ended(called).await, Ended::Landed(_)));
        assert!(flights.join(&key()).is_some(), "the next one stays in the map");
        flights.expel_stuck(&key(), &ticket);
        assert!(flights.join(&key()).is_some(), "it is another");
        drop(next);
    }
}
