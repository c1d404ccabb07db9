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

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use futures_util::FutureExt;
use tokio::sync::SetOnce;
use tracing::Instrument;

use crate::cache::Outcome;
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

/// What a flight brings to those who joined it.
#[derive(Debug)]
pub(crate) struct Landing<T> {
    pub(crate) result: Result<Option<Arc<T>>, Error>,
    /// As it is for the one who started the flight.
    pub(crate) outcome: Outcome,
    /// The step that justifies a value. An error needs no justification.
    pub(crate) justified: Stamp,
}

impl<T> Landing<T> {
    /// What is left to say to the one who started a flight that ended without a result.
    pub(crate) fn lost(key: &Key) -> Self {
        let message = "the load ended without a result, as when its runtime shuts down".to_owned();
        let result = Err(Error::LoadPanicked { key: key.to_string(), message });
        Self { result, outcome: Outcome::Loaded, justified: Stamp::of_call() }
    }
}

impl<T> Clone for Landing<T> {
    fn clone(&self) -> Self {
        Self { result: self.result.clone(), ..*self }
    }
}

/// The flights of one cache.
pub(crate) struct Flights<T> {
    running: DashMap<Key, Ticket<T>>,
    /// How many there are: hits look here first.
    number: AtomicUsize,
}

/// A caller's place in a flight: set once that has ended, without a landing if it was lost.
pub(crate) type Ticket<T> = Arc<SetOnce<Option<Landing<T>>>>;

/// What a caller gets who wants to fly.
pub(crate) enum Boarding<T> {
    Joined(Ticket<T>),
    Reserved(Reservation<T>),
}

impl<T> Flights<T> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { running: DashMap::new(), number: AtomicUsize::new(0) })
    }

    /// Joins the flight of a key, if one is under way.
    pub(crate) fn join(&self, key: &Key) -> Option<Ticket<T>> {
        if self.number.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.running.get(key).map(|ticket| ticket.clone())
    }

    /// Joins the flight of a key, or reserves the start of one.
    pub(crate) fn join_or_reserve(self: &Arc<Self>, key: &Key) -> Boarding<T> {
        match self.running.entry(key.clone()) {
            Slot::Occupied(running) => Boarding::Joined(running.get().clone()),
            Slot::Vacant(slot) => {
                let ticket = Ticket::default();
                // First the number: so it never falls below what is there.
                self.number.fetch_add(1, Ordering::Relaxed);
                slot.insert(ticket.clone());
                Boarding::Reserved(Reservation { flights: self.clone(), key: key.clone(), ticket, landing: None })
            }
        }
    }

    /// Takes the flight of a key out of the map: those who are in it stay, and nobody joins it any more.
    pub(crate) fn expel(&self, key: &Key) {
        self.expel_if(key, |_| true);
    }

    /// The same if it is this flight, as one that does not end.
    pub(crate) fn expel_this(&self, key: &Key, ticket: &Ticket<T>) {
        self.expel_if(key, |running| Arc::ptr_eq(running, ticket));
    }

    fn expel_if(&self, key: &Key, is_it: impl FnOnce(&Ticket<T>) -> bool) {
        if self.running.remove_if(key, |_, running| is_it(running)).is_some() {
            self.number.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[cfg(feature = "__proof")]
    pub(crate) fn count(&self) -> usize {
        self.running.len()
    }
}

/// The right to start a flight, which others may have joined already. It ends the flight, however its task does: that may
/// also panic, or go with its runtime.
pub(crate) struct Reservation<T> {
    flights: Arc<Flights<T>>,
    key: Key,
    ticket: Ticket<T>,
    landing: Option<Landing<T>>,
}

impl<T: Send + Sync + 'static> Reservation<T> {
    /// Starts the flight in a task of its own, with the caller's tracing span.
    pub(crate) fn start(self, flight: impl Future<Output = Landing<T>> + Send + 'static) -> Ticket<T> {
        let ticket = self.ticket.clone();
        tokio::spawn(flight.map(|landing| self.land(landing)).in_current_span());
        ticket
    }

    fn land(mut self, landing: Landing<T>) {
        self.landing = Some(landing);
    }
}

impl<T> Drop for Reservation<T> {
    fn drop(&mut self) {
        // First out of the map, then the news: nobody can join a flight that has ended.
        self.flights.expel_this(&self.key, &self.ticket);
        // Nobody else sets it.
        let _ = self.ticket.set(self.landing.take());
    }
}

/// Waits for a flight to end, for a call that started at `called`. `None`: it was lost, or what it brings may be older than
/// the call. Dropping this future leaves the flight under way.
pub(crate) async fn ended<T>(ticket: &Ticket<T>, called: Stamp) -> Option<Landing<T>> {
    let landing = ticket.wait().await.as_ref()?;
    (landing.result.is_err() || called < landing.justified).then(|| landing.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cacheable::Schema;
    use crate::key::KeySpace;

    impl Flights<u32> {
        fn is_empty(&self) -> bool {
            self.running.is_empty() && self.number.load(Ordering::Relaxed) == 0
        }
    }

    fn key() -> Key {
        KeySpace::new(None, &Schema::new("thing")).key::<u64>(&1).unwrap()
    }

    fn landing(result: Result<Option<Arc<u32>>, Error>, justified: Stamp) -> Landing<u32> {
        Landing { result, outcome: Outcome::Loaded, justified }
    }

    /// Starts a flight that takes its stamp at once, and lands when it is told to.
    async fn stamped_flight(
        flights: &Arc<Flights<u32>>,
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
        assert!(ended(&ticket, early).await.is_some());
        assert!(ended(&late_ticket, late).await.is_none());
        assert!(ended(&early_ticket, early).await.is_some(), "it joined late, but called early");
        assert!(flights.is_empty(), "a flight that has landed is gone");
    }

    #[tokio::test]
    async fn an_error_is_for_all_who_joined() {
        let (flights, early) = (Flights::new(), Stamp::of_call());
        let (ticket, land) = stamped_flight(&flights, Err(Error::config("failed"))).await;
        let (late, late_ticket) = (Stamp::of_call(), flights.join(&key()).unwrap());
        land.send(()).unwrap();
        assert!(matches!(ended(&ticket, early).await, Some(Landing { result: Err(_), .. })));
        assert!(matches!(ended(&late_ticket, late).await, Some(Landing { result: Err(_), .. })));
    }

    #[tokio::test]
    async fn a_flight_that_is_lost_leaves_the_map() {
        let (flights, called) = (Flights::<u32>::new(), Stamp::of_call());
        let Boarding::Reserved(unused) = flights.join_or_reserve(&key()) else { panic!("a flight is under way") };
        let joined = flights.join(&key()).unwrap();
        drop(unused);
        assert!(ended(&joined, called).await.is_none());
        let Boarding::Reserved(panicking) = flights.join_or_reserve(&key()) else { panic!("a flight is under way") };
        let ticket = panicking.start(async { panic!("on purpose") });
        assert!(ended(&ticket, called).await.is_none());
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
        assert!(ended(&ticket, called).await.is_some());
        assert!(flights.join(&key()).is_some(), "the next one stays in the map");
        flights.expel_this(&key(), &ticket);
        assert!(flights.join(&key()).is_some(), "it is another");
        drop(next);
    }
}
