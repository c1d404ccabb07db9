//! Many gets at once: entries are read together, and missing records are loaded together. Each key has a flight and a lease
//! of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt, stream};
use tracing::Instrument;

use super::batch::{Awaited, Batch, EachLoader, ErasedId, ManyLoader};
use super::get::{Answer, Get, Looked, Miss};
use super::single_flight::Role;
use crate::cache::{Bypass, Core, Outcome};
use crate::error::Error;
use crate::metrics::{Stopwatch, spans};
use crate::record::{Found, InvalidId, Key};

/// The number of keys that are read and loaded together: enough to keep a connection busy, few enough for each step to meet
/// its deadline.
const AT_A_TIME: usize = 1_024;

/// The keys of the ids that were asked for, each once.
#[derive(Default)]
pub(crate) struct Asked {
    different: Vec<Different>,
    known: HashMap<Key, usize, RandomState>,
    /// For each id, its place among the different keys, or what is wrong with it. Boxed, as errors are large.
    places: Vec<Result<usize, Box<Error>>>,
}

/// One of the keys.
struct Different {
    key: Key,
    /// The error of an id that can't be part of a key: its record is loaded around the cache.
    invalid: Option<Box<Error>>,
}

/// How many loaders of one record run at a time.
const EACH_AT_A_TIME: usize = 32;

/// What loads the missing records of a call.
enum Source {
    Batch(Arc<Batch>),
    Each(Arc<EachLoader>),
}

impl Source {
    fn is_batch(&self) -> bool {
        matches!(self, Self::Batch(_))
    }

    /// Lets the call of a batch wait for one more load, if that load may begin at once.
    fn await_one(&self, leads: bool) -> Option<Awaited> {
        match self {
            Self::Batch(batch) if leads => batch.await_one(),
            Self::Batch(_) | Self::Each(_) => None,
        }
    }
}

/// Takes the id at a place among the different ones. Called at most once for each place.
type TakeId<'a> = &'a mut (dyn FnMut(usize) -> ErasedId + Send);

impl Asked {
    /// Adds an id; returns whether it is the first with this key.
    pub(crate) fn add(&mut self, core: &Core, key: Result<Key, InvalidId>) -> bool {
        let before = self.different.len();
        let key = match key {
            Ok(key) => Ok((key, None)),
            Err(invalid) => core.report_invalid_id(invalid).map(|(key, error)| (key, Some(Box::new(error)))),
        };
        let place = key.map(|(key, invalid)| {
            *self.known.entry(key.clone()).or_insert_with(|| {
                self.different.push(Different { key, invalid });
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
        take_id: TakeId<'_>,
        loader: ManyLoader,
        is_lookup: bool,
    ) -> Vec<Result<Answer, Error>> {
        let Asked { different, places, known } = asked;
        drop(known);
        let source = match loader {
            ManyLoader::Together(loader) => Source::Batch(Batch::new(self.clone(), loader)),
            ManyLoader::Each(loader) => Source::Each(loader),
        };
        let span = spans::get_many(self.shape, places.len());
        let gets = async {
            let mut answers = Vec::with_capacity(different.len());
            for part in different.chunks(AT_A_TIME) {
                self.get_together(part, take_id, &source, is_lookup, &mut answers).await;
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

    /// Adds the answers for a part of the keys, which comes after those that are answered already.
    async fn get_together(
        self: &Arc<Self>,
        part: &[Different],
        take_id: TakeId<'_>,
        source: &Source,
        is_lookup: bool,
        answers: &mut Vec<Result<Answer, Error>>,
    ) {
        let first = answers.len();
        let (called, began) = (self.timestamp_of_call(), Stopwatch::start());
        let gets: Vec<_> = part.iter().map(|asked| Get { core: self, key: &asked.key, called, began }).collect();
        let mut loader = |place: usize, awaited: Option<Awaited>| {
            let (get, id) = (gets[place], take_id(first + place));
            let loader = match source {
                Source::Batch(batch) => batch.clone().loader(get.key.clone(), id),
                Source::Each(loader) => loader(id),
            };
            move |load| get.read_through(loader, load, awaited)
        };
        let mut loads = Vec::new();
        if !self.is_enabled() {
            // All are awaited before any begins, here and below, so that they load together.
            loads.extend((0..gets.len()).map(|place| {
                let load = gets[place].load_around(loader(place, source.await_one(true)));
                load.map(move |answer| (place, answer)).boxed()
            }));
        }
        let mut together: Vec<Option<Result<Answer, Error>>> = Vec::with_capacity(gets.len());
        let looks = if self.is_enabled() { self.look_at_all(part, &gets, is_lookup).await } else { Vec::new() };
        for (place, looked) in looks.into_iter().enumerate() {
            let get = gets[place];
            let load = match looked {
                Looked::Hit(answer, due) => {
                    if let Some(due) = due {
                        loader(place, None)(get.begin_load()).refresh_ahead(due);
                    }
                    together.push(Some(Ok(answer)));
                    continue;
                }
                Looked::Stale(answer, epoch) => {
                    let role = get.join_stale();
                    let awaited = source.await_one(matches!(role, Role::Leader(_)));
                    get.revalidate(role, answer, epoch, loader(place, awaited)).boxed()
                }
                Looked::Missed(miss, cache_latency) if source.is_batch() => {
                    let joined = get.join(miss);
                    let awaited = source.await_one(matches!(joined, (Role::Leader(_), _)));
                    get.load(joined, cache_latency, loader(place, awaited)).boxed()
                }
                // Joins when it is its turn, so that no call waits for a flight that has not begun.
                Looked::Missed(miss, cache_latency) => {
                    let read_through = loader(place, None);
                    async move { get.load(get.join(miss), cache_latency, read_through).await }.boxed()
                }
            };
            together.push(None);
            loads.push(load.map(move |answer| (place, answer)).boxed());
        }
        together.resize_with(gets.len(), || None);
        let at_a_time = if source.is_batch() { AT_A_TIME } else { EACH_AT_A_TIME };
        let mut loads = stream::iter(loads).buffer_unordered(at_a_time);
        while let Some((place, answer)) = loads.next().await {
            together[place] = Some(answer);
        }
        answers.extend(together.into_iter().flatten());
    }

    /// Looks into the near cache, and reads all other entries in one go.
    async fn look_at_all(&self, part: &[Different], gets: &[Get<'_>], is_lookup: bool) -> Vec<Looked> {
        let unusable = |asked: &Different| {
            let invalid = asked.invalid.clone();
            invalid.map(|error| Looked::Missed(Miss::Unusable(error, Bypass::InvalidId), Duration::ZERO))
        };
        let mut looks: Vec<_> = part.iter().map(unusable).collect();
        let mut reads = Vec::new();
        for (get, look) in gets.iter().zip(&mut looks).filter(|(_, look)| look.is_none()) {
            if let Some(kept) = self.near.as_ref().and_then(|near| near.get(get.key.id())) {
                self.metrics.got(Outcome::NearHit, true, get.began);
                *look = Some(Looked::Hit(Answer::near(kept), None));
                continue;
            }
            match get.may_read() {
                Ok(before) => reads.push((get, before, look)),
                Err(miss) => *look = Some(Looked::Missed(miss, Duration::ZERO)),
            }
        }
        let keys: Vec<_> = reads.iter().map(|(get, ..)| get.key).collect();
        let with_ttl = is_lookup || self.reads_lifetimes();
        let sent = Instant::now();
        let mut each = |place: usize, found: Option<Found>| {
            let (get, before, look) = &mut reads[place];
            // A stale record is read once more, with its lifetime.
            if with_ttl || found.as_ref().is_none_or(|found| found.entry.meta().stale.is_none()) {
                **look = Some(get.looked(None, *before, Ok(found), sent.elapsed()));
            }
        };
        let failures = self.backend.read_many(&keys, &self.selection, with_ttl, &mut each).await;
        for (place, error) in failures {
            let (get, before, look) = &mut reads[place];
            if look.is_none() {
                **look = Some(get.looked(None, *before, Err(error), sent.elapsed()));
            }
        }
        let alone = reads.into_iter().filter(|(_, _, look)| look.is_none()).map(async |(get, before, look)| {
            let found = self.read_entry(get.key, &self.selection, with_ttl).await;
            *look = Some(get.looked(None, before, found, sent.elapsed()));
        });
        join_all(alone).await;
        looks.into_iter().flatten().collect()
    }
}
