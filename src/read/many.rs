//! Many gets at once: read together, and what is missing loaded together. Each key keeps a flight and a lease of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use futures_util::FutureExt;
use futures_util::future::join_all;
use tracing::Instrument;

use super::batch::{Awaited, Batch, ErasedId};
use super::get::{Answer, Looked};
use super::read_through::ReadThrough;
use super::single_flight::Role;
use crate::cache::Core;
use crate::error::Error;
use crate::meter::Began;
use crate::record::{Found, Key};
use crate::spans;

/// So many keys are looked at and loaded together: enough to keep a connection busy, few enough to keep each step's
/// deadline.
const AT_A_TIME: usize = 1_024;

/// The ids that were asked for, as keys, each once.
#[derive(Default)]
pub(crate) struct Asked {
    different: Vec<Key>,
    known: HashMap<Key, usize, RandomState>,
    /// For each id its place among the different ones, or what is wrong with it. Boxed, as errors are large.
    places: Vec<Result<usize, Box<Error>>>,
}

/// The ids by their place among the different ones, without their types.
pub(crate) trait Ids: Send {
    /// Takes an id. Called at most once for each place.
    fn take(&mut self, place: usize) -> ErasedId;
}

impl Asked {
    /// Adds an id; returns whether it is the first with this key.
    pub(crate) fn add(&mut self, key: Result<Key, Error>) -> bool {
        let before = self.different.len();
        let place = key.map(|key| {
            *self.known.entry(key.clone()).or_insert_with(|| {
                self.different.push(key);
                before
            })
        });
        self.places.push(place.map_err(Box::new));
        self.different.len() > before
    }
}

impl Core {
    /// The answers have the order of the ids.
    pub(crate) async fn get_many(
        self: &Arc<Self>,
        asked: Asked,
        ids: &mut dyn Ids,
        batch: Arc<Batch>,
    ) -> Vec<Result<Answer, Error>> {
        let Asked { different, places, known } = asked;
        drop(known);
        let span = spans::get_many(self.shape, places.len());
        let gets = async {
            let mut answers = Vec::with_capacity(different.len());
            for part in different.chunks(AT_A_TIME) {
                let first = answers.len();
                self.get_together(part, &mut |place| ids.take(first + place), &batch, &mut answers).await;
            }
            answers
        };
        let answers = gets.instrument(span).await;
        if places.len() == answers.len() {
            // All ids were different, and in order.
            return answers;
        }
        places.into_iter().map(|place| answers[place.map_err(|mistake| *mistake)?].clone()).collect()
    }

    /// Looks into the near cache, and then into Redis: at all that are to be read in one go.
    async fn look_at_all(&self, part: &[Key], began: Began) -> Vec<Looked> {
        let mut looks: Vec<_> = part.iter().map(|_| None).collect();
        let mut reads = Vec::new();
        for (key, look) in part.iter().zip(&mut looks) {
            if let Some(kept) = self.near.as_ref().and_then(|near| near.get(key.id())) {
                *look = Some(Looked::Hit(self.near_answer(kept, began), None));
                continue;
            }
            match self.may_read(key) {
                Ok(ticket) => reads.push((key, ticket, look)),
                Err(miss) => *look = Some(Looked::Missed(miss, Duration::ZERO)),
            }
        }
        let keys: Vec<_> = reads.iter().map(|(key, ..)| *key).collect();
        let with_ttl = self.reads_lifetimes();
        let began_to_look = Instant::now();
        let mut each = |place: usize, found: Option<Found>| {
            let (key, ticket, look) = &mut reads[place];
            // A stale record is read once more, with its lifetime.
            if with_ttl || found.as_ref().is_none_or(|found| found.entry.meta().stale.is_none()) {
                **look = Some(self.looked(key, None, *ticket, Ok(found), began_to_look.elapsed(), began));
            }
        };
        let failures = self.backend.read_many(&keys, &self.selection, with_ttl, &mut each).await;
        for (place, error) in failures {
            let (key, ticket, look) = &mut reads[place];
            if look.is_none() {
                **look = Some(self.looked(key, None, *ticket, Err(error), began_to_look.elapsed(), began));
            }
        }
        let alone = reads.into_iter().filter(|(_, _, look)| look.is_none()).map(async |(key, ticket, look)| {
            let found = self.read_entry(key, &self.selection).await;
            *look = Some(self.looked(key, None, ticket, found, began_to_look.elapsed(), began));
        });
        join_all(alone).await;
        looks.into_iter().flatten().collect()
    }

    async fn get_together(
        self: &Arc<Self>,
        part: &[Key],
        take_id: &mut (dyn FnMut(usize) -> ErasedId + Send),
        batch: &Arc<Batch>,
        answers: &mut Vec<Result<Answer, Error>>,
    ) {
        let (called, began) = (self.timestamp_of_call(), Began::now());
        let read_through = |key: Key, id: ErasedId, awaited: Option<Awaited>| {
            let loader = Box::new({
                let (batch, key) = (batch.clone(), key.clone());
                move || batch.load(key, id)
            });
            ReadThrough { core: self.clone(), key, loader, awaited }
        };
        if !self.policy.enabled {
            // All are awaited before any begins, here and below: so they load together.
            let gets = part.iter().enumerate();
            let gets: Vec<_> =
                gets.map(|(place, key)| read_through(key.clone(), take_id(place), Some(batch.await_one()))).collect();
            answers.extend(join_all(gets.into_iter().map(|get| self.get_around(get, began))).await);
            return;
        }
        let looks = self.look_at_all(part, began).await;
        let mut flights = Vec::new();
        let mut together: Vec<Option<Result<Answer, Error>>> = Vec::with_capacity(part.len());
        for (place, (key, look)) in part.iter().zip(looks).enumerate() {
            match look {
                Looked::Hit(answer, due) => {
                    if let Some(due) = due {
                        read_through(key.clone(), take_id(place), None).refresh_ahead(due);
                    }
                    together.push(Some(Ok(answer)));
                }
                Looked::Missed(miss, cache_latency) => {
                    let (role, unusable) = miss.role(self, key);
                    let awaited = matches!(role, Role::Leader(_)).then(|| batch.await_one());
                    let id = take_id(place);
                    let read_through = || read_through(key.clone(), id, awaited);
                    let flight = self.load(called, key.clone(), role, unusable, cache_latency, began, read_through);
                    flights.push(flight.map(move |answer| (place, answer)).boxed());
                    together.push(None);
                }
            }
        }
        for (place, answer) in join_all(flights).await {
            together[place] = Some(answer);
        }
        answers.extend(together.into_iter().flatten());
    }
}
