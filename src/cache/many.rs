//! Many gets at once: read together, and what is missing loaded together. Each key keeps a flight and a lease of its own.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;
use futures_util::FutureExt;
use futures_util::future::join_all;
use tracing::Instrument;

use super::lookup::{Got, Lookup, Miss, Whole};
use crate::batch::{Awaited, Batch};
use crate::cache::Core;
use crate::cacheable::Cacheable;
use crate::entry::Found;
use crate::error::Error;
use crate::flight::Boarding;
use crate::id::CacheKey;
use crate::key::Key;
use crate::lease::ReadThrough;
use crate::meter::Began;
use crate::refresh::Due;
use crate::spans;

/// So many keys are looked at and loaded together: enough to keep a connection busy, few enough to keep each step's
/// deadline.
const AT_A_TIME: usize = 1_024;

/// Like [`Looked`](super::lookup::Looked), in less memory: hits are many.
type Look<T> = ControlFlow<(Got<Arc<T>>, Option<Due>), Box<Miss<T>>>;

/// What was asked for, each key once.
pub(super) struct Asked<K> {
    different: Vec<(Key, K)>,
    /// For each id its place among these, or what is wrong with it. Boxed, as errors are large.
    places: Vec<Result<usize, Box<Error>>>,
}

impl<K> FromIterator<(Result<Key, Error>, K)> for Asked<K> {
    fn from_iter<I: IntoIterator<Item = (Result<Key, Error>, K)>>(ids: I) -> Self {
        let ids = ids.into_iter();
        let count = ids.size_hint().0.min(AT_A_TIME);
        let mut asked = Self { different: Vec::with_capacity(count), places: Vec::with_capacity(count) };
        let mut known = HashMap::with_capacity_and_hasher(count, RandomState::default());
        for (key, id) in ids {
            let place = key.map(|key| {
                *known.entry(key.clone()).or_insert_with(|| {
                    asked.different.push((key, id));
                    asked.different.len() - 1
                })
            });
            asked.places.push(place.map_err(Box::new));
        }
        asked
    }
}

impl<T: Cacheable> Core<T> {
    /// The answers have the order of the ids.
    pub(super) async fn get_many<K: CacheKey<T::Id>>(
        self: &Arc<Self>,
        asked: Asked<K>,
        batch: Arc<Batch<T>>,
    ) -> Vec<Result<Lookup<T>, Error>> {
        let Asked { different, places } = asked;
        let span = spans::get_many::<T>(places.len());
        let gets = async {
            if different.len() <= AT_A_TIME {
                return self.get_together(different, &batch).await;
            }
            let mut answers = Vec::with_capacity(different.len());
            let mut rest = different.into_iter();
            while rest.len() > 0 {
                let part = rest.by_ref().take(AT_A_TIME).collect();
                answers.extend(self.get_together(part, &batch).await);
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
    async fn look_at_all(&self, view: &Whole, part: &[&Key], began: Began) -> Vec<Look<T>> {
        let mut looks: Vec<_> = part.iter().map(|_| None).collect();
        let mut reads = Vec::new();
        for (key, look) in part.iter().zip(&mut looks) {
            if let Some(got) = self.near_hit(view, |near| near.get(key.id()), began) {
                *look = Some(ControlFlow::Break((got, None)));
                continue;
            }
            match self.may_read(key) {
                Ok(ticket) => reads.push((key, ticket, look)),
                Err(miss) => *look = Some(ControlFlow::Continue(Box::new(miss))),
            }
        }
        let keys: Vec<_> = reads.iter().map(|(key, ..)| **key).collect();
        let with_ttl = self.reads_lifetimes();
        let began_to_look = Instant::now();
        let mut each = |place: usize, found: Option<Found>| {
            let (key, ticket, look) = &mut reads[place];
            // A stale record is read once more, with its lifetime.
            if with_ttl || found.as_ref().is_none_or(|found| found.entry.meta().stale.is_none()) {
                **look = Some(
                    self.looked(view, key, *ticket, Ok(found), began_to_look.elapsed(), began).map_continue(Box::new),
                );
            }
        };
        let failures = self.backend.read_many(&keys, &self.selection, with_ttl, &mut each).await;
        for (place, error) in failures {
            let (key, ticket, look) = &mut reads[place];
            if look.is_none() {
                **look = Some(
                    self.looked(view, key, *ticket, Err(error), began_to_look.elapsed(), began).map_continue(Box::new),
                );
            }
        }
        let alone = reads.into_iter().filter(|(_, _, look)| look.is_none()).map(async |(key, ticket, look)| {
            let found = self.found(key, &self.selection).await;
            *look = Some(self.looked(view, key, ticket, found, began_to_look.elapsed(), began).map_continue(Box::new));
        });
        join_all(alone).await;
        looks.into_iter().flatten().collect()
    }

    async fn get_together<K: CacheKey<T::Id>>(
        self: &Arc<Self>,
        part: Vec<(Key, K)>,
        batch: &Arc<Batch<T>>,
    ) -> Vec<Result<Lookup<T>, Error>> {
        let (called, began) = (self.stamp_of_call(), Began::now());
        let read_through = |key: Key, id: K, awaited: Option<Awaited>| {
            let (batch, id) = (batch.clone(), id.into_id());
            ReadThrough { core: self.clone(), key, id, loader: Box::new(move |id| batch.load(id)), awaited }
        };
        if !self.policy.enabled {
            // All are awaited before any begins, here and below: so they load together.
            let gets = part.into_iter().map(|(key, id)| read_through(key, id, Some(batch.await_one())));
            let gets = gets.collect::<Vec<_>>().into_iter().map(|get| self.get_around(get, began));
            return join_all(gets).await;
        }
        let view = Whole { is_timed: true, ..Whole::default() };
        let looks = self.look_at_all(&view, &part.iter().map(|(key, _)| key).collect::<Vec<_>>(), began).await;
        let mut answers = Vec::with_capacity(part.len());
        let mut flights = Vec::new();
        for ((key, id), look) in part.into_iter().zip(looks) {
            match look {
                ControlFlow::Break((got, due)) => {
                    if let Some(due) = due {
                        read_through(key, id, None).refresh_ahead(due);
                    }
                    answers.push(Some(Ok(got.into())));
                }
                ControlFlow::Continue(mut miss) => {
                    let boarding = self.board(&key, &mut miss);
                    let awaited = matches!(boarding, Boarding::Reserved(_)).then(|| batch.await_one());
                    let read_through = move |key| read_through(key, id, awaited);
                    let (place, flight) = (answers.len(), self.fly(called, key, *miss, boarding, began, read_through));
                    flights.push(flight.map(move |lookup| (place, lookup)).boxed());
                    answers.push(None);
                }
            }
        }
        for (place, lookup) in join_all(flights).await {
            answers[place] = Some(lookup);
        }
        answers.into_iter().flatten().collect()
    }
}
