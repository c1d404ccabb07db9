//! The operations of readers and writers: one after another, drawn from the task's own random sequence.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use cache_aside::{Cache, Error, Inspection, Lookup};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep, timeout};

use crate::cached::{self, Record};
use crate::clock;
use crate::history::{Call, Ended, Kind, Read, Recorder, Source};
use crate::link::Link;
use crate::loader::{self, Plan};
use crate::row::{Change, Fields, NoteChange, Row};
use crate::wire::Round;

/// State that the tasks of one process share in one round.
pub(crate) struct Stage {
    pub(crate) process: u16,
    pub(crate) round: Round,
    pub(crate) keys: u32,
    /// Whether the caches have near caches.
    pub(crate) near: bool,
    pub(crate) link: Link,
    pub(crate) recorder: Recorder,
    /// The first two share their flights and their backend.
    pub(crate) caches: [Cache<Record>; 3],
    /// A backend with all guards, and without delays.
    pub(crate) bare: Cache<Record>,
    pub(crate) loads: AtomicU64,
}

impl Stage {
    pub(crate) fn id(&self, key: u32) -> String {
        format!("{}.{key}", self.round.number)
    }

    /// A number that no other load of any process has. Never 0.
    pub(crate) fn next_load(&self) -> u64 {
        const MOST_PROCESSES: u64 = 64;
        (self.loads.fetch_add(1, Ordering::Relaxed) + 1) * MOST_PROCESSES + u64::from(self.process)
    }

    /// A call that succeeded without a record, to be filled in.
    pub(crate) fn call(&self, key: u32, task: u16, kind: Kind) -> Call {
        let (process, ended, read) = (self.process, Ended::Done, Read::Nothing);
        let (backend, source, committed) = (None, None, None);
        Call { key, process, task, backend, kind, start: 0, end: 0, ended, read, source, committed }
    }

    /// A caller without a deadline.
    pub(crate) fn caller(&self, index: usize) -> Caller {
        Caller { cache: self.caches[index].clone(), backend: Some(u8::from(index == 2)), patience: None }
    }
}

/// The caller of an operation.
pub(crate) struct Caller {
    pub(crate) cache: Cache<Record>,
    /// The backend that the cache is over.
    pub(crate) backend: Option<u8>,
    /// The call is dropped when it takes longer.
    pub(crate) patience: Option<Duration>,
}

/// A call's outcome, as recorded in the history.
pub(crate) struct Told {
    ended: Ended,
    read: Read,
    source: Option<Source>,
}

impl Told {
    fn read(record: Option<&Record>, source: Option<Source>) -> Self {
        let read = record.map_or(Read::Absent, |record| Read::Record(record.seen()));
        Self { ended: Ended::Done, read, source }
    }

    /// A read of the cache alone, for which a missing entry means nothing.
    fn peeked(record: Option<&Record>) -> Self {
        let read = record.map_or(Read::Nothing, |record| Read::Record(record.seen()));
        Self { ended: Ended::Done, read, source: None }
    }

    pub(crate) fn inspected(inspection: &Inspection) -> Self {
        Self { read: cached::inspected(inspection), ..Self::without_record(Ended::Done) }
    }

    fn written(applied: bool) -> Self {
        Self::without_record(if applied { Ended::Done } else { Ended::NothingThere })
    }

    fn without_record(ended: Ended) -> Self {
        Self { ended, read: Read::Nothing, source: None }
    }
}

/// One reading or writing task.
pub(crate) struct Actor {
    pub(crate) stage: Arc<Stage>,
    pub(crate) task: u16,
    pub(crate) rng: StdRng,
}

impl Actor {
    pub(crate) async fn read_until(mut self, end: Instant) -> Result<()> {
        while Instant::now() < end {
            self.read_once().await;
            self.rest(2_000).await;
        }
        Ok(())
    }

    pub(crate) async fn write_until(mut self, end: Instant) -> Result<()> {
        while Instant::now() < end {
            self.write_once().await?;
            self.rest(6_000).await;
        }
        Ok(())
    }

    async fn read_once(&mut self) {
        let (key, caller) = (self.draw_key(), self.draw_caller());
        let (id, cache) = (self.stage.id(key), &caller.cache);
        let plan = Plan::draw(&mut self.rng);
        let (stage, task) = (self.stage.clone(), self.task);
        let load = move |id| loader::load(stage, key, task, id, plan);
        match self.rng.random_range(0..100) {
            // A get doesn't report whether a near cache has answered.
            0..25 if self.stage.near => {
                let get = cache.get_fresh(id, load);
                self.call(key, Kind::GetFresh, &caller, None, get, |record| Told::read(record.as_deref(), None)).await;
            }
            0..25 => {
                let get = cache.get(id, load);
                self.call(key, Kind::Get, &caller, None, get, |record| Told::read(record.as_deref(), None)).await;
            }
            25..70 if self.stage.near => self.watch(key, &caller, plan).await,
            25..70 => self.lookup(Kind::Lookup, key, &caller, plan).await,
            70..90 => {
                let peek = cache.peek(id);
                self.call(key, Kind::Peek, &caller, None, peek, |record| Told::peeked(record.as_deref())).await;
            }
            90..94 => {
                let inspect = cache.inspect(id);
                let tell = |inspection| Told::inspected(&inspection);
                self.call(key, Kind::Inspect, &caller, None, inspect, tell).await;
            }
            94..97 => {
                let stage = self.stage.clone();
                let refresh = cache.refresh(id, move |id| loader::load(stage, key, task, id, plan.replacing()));
                let tell = |record: Option<Arc<Record>>| Told::read(record.as_deref(), None);
                self.call(key, Kind::Refresh, &caller, None, refresh, tell).await;
            }
            _ => {
                self.invalidate(&caller, key).await;
            }
        }
    }

    /// Looks a record up again and again: a loaded record is in the near cache only after the next look. Sometimes it
    /// takes any record, for a long time, since records that get most of the calls are soon dropped.
    async fn watch(&mut self, key: u32, caller: &Caller, plan: Plan) {
        let (key, most_micros) = match self.rng.random_bool(0.03) {
            true => (self.rng.random_range(0..self.stage.keys), 1_000_000),
            false => (key, 10_000),
        };
        let end = Instant::now() + Duration::from_micros(self.rng.random_range(0..most_micros));
        self.lookup(Kind::Lookup, key, caller, plan).await;
        while Instant::now() < end {
            self.rest(2_000).await;
            self.lookup(Kind::Lookup, key, caller, plan).await;
        }
    }

    pub(crate) async fn lookup(&self, kind: Kind, key: u32, caller: &Caller, plan: Plan) {
        let (stage, task) = (self.stage.clone(), self.task);
        let confirm = move |given| loader::confirm(stage, key, task, given, plan);
        let lookup = caller.cache.lookup_with(self.stage.id(key), confirm);
        let tell = |lookup: Lookup<Record>| Told::read(lookup.value.as_deref(), Source::of(lookup.outcome));
        self.call(key, kind, caller, None, lookup, tell).await;
    }

    async fn write_once(&mut self) -> Result<()> {
        let (key, change) = (self.draw_key(), self.draw_change());
        if is_updated_in_place(key) {
            return self.write_under_lock(key, change).await;
        }
        if self.rng.random_bool(0.1) {
            return self.write_many(key, change).await;
        }
        self.stage.link.commit(self.stage.round.number, key, change).await?;
        self.rest(3_000).await;
        let caller = self.draw_caller();
        self.invalidate(&caller, key).await;
        Ok(())
    }

    /// Commits to several rows, and invalidates them in one call.
    async fn write_many(&mut self, first: u32, change: Change) -> Result<()> {
        let others = self.rng.random_range(1..5);
        let drawn: Vec<_> = (0..others).map(|_| self.draw_key()).collect();
        let keys: Vec<_> =
            std::iter::once(first).chain(drawn.into_iter().filter(|key| !is_updated_in_place(*key))).collect();
        for key in &keys {
            self.stage.link.commit(self.stage.round.number, *key, change).await?;
        }
        let Caller { cache, backend, .. } = self.draw_caller();
        let start = clock::now();
        let results = cache.invalidate_many(keys.iter().map(|key| self.stage.id(*key))).await;
        let end = clock::now();
        for (key, result) in keys.into_iter().zip(results) {
            let ended = if result.is_ok() { Ended::Done } else { Ended::Failed };
            let call = self.stage.call(key, self.task, Kind::InvalidateMany);
            self.stage.recorder.record(Call { backend, start, end, ended, ..call });
        }
        Ok(())
    }

    /// Commits and updates in place, holding the row's lock until the cache is right again.
    async fn write_under_lock(&mut self, key: u32, change: Change) -> Result<()> {
        let (link, round) = (self.stage.link.clone(), self.stage.round.number);
        let state = link.lock_and_commit(round, key, change).await?;
        self.rest(3_000).await;
        let (caller, way) = (self.draw_caller(), self.rng.random_range(0..100));
        let done = match (state.row, change) {
            (Some(row), Change::Put(set)) if way < 80 => {
                let set = if state.created { Fields::ALL } else { set };
                self.update(&caller, key, Written { version: state.version, row, set }, way).await
            }
            _ => self.invalidate(&caller, key).await,
        };
        if !done {
            self.invalidate_in_any_case(&Caller { patience: None, ..caller }, key).await?;
        }
        link.unlock(round, key);
        Ok(())
    }

    async fn update(&self, caller: &Caller, key: u32, written: Written, way: u32) -> bool {
        let (id, fields, cache) = (self.stage.id(key), Record::FIELDS, &caller.cache);
        let Written { version, row, set } = written;
        let committed = Some(version);
        if way < 25 {
            let modify = cache.modify(id, move |record| record.set(set, &row));
            let tell = |record: Option<Arc<Record>>| Told {
                ended: Told::written(record.is_some()).ended,
                ..Told::peeked(record.as_deref())
            };
            return self.call(key, Kind::Modify, caller, committed, modify, tell).await;
        }
        if set == Fields::PRICE {
            let update = cache.update_field(id, fields.price, row.price);
            return self.call(key, Kind::UpdateField, caller, committed, update, Told::written).await;
        }
        if set == Fields::NAME {
            let update = cache.update_field(id, fields.name, cached::name_of(row.name));
            return self.call(key, Kind::UpdateField, caller, committed, update, Told::written).await;
        }
        let update = cache.update_fields(id, cached::changes(set, &row));
        self.call(key, Kind::UpdateFields, caller, committed, update, Told::written).await
    }

    async fn invalidate(&self, caller: &Caller, key: u32) -> bool {
        let tell = |_was_there| Told::written(true);
        self.call(key, Kind::Invalidate, caller, None, caller.cache.invalidate(self.stage.id(key)), tell).await
    }

    /// The outcome of an update is unknown: the row stays locked until an invalidation has succeeded.
    async fn invalidate_in_any_case(&self, caller: &Caller, key: u32) -> Result<()> {
        /// Long enough for a failover.
        const TRIES: u32 = 100;
        for _ in 0..TRIES {
            if self.invalidate(caller, key).await {
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
        bail!("the cache can't be reached: {TRIES} invalidations in a row have failed");
    }

    /// Makes a call, drops it when it takes longer than the caller's deadline, and records it. Returns whether it
    /// succeeded.
    pub(crate) async fn call<R>(
        &self,
        key: u32,
        kind: Kind,
        caller: &Caller,
        committed: Option<u64>,
        work: impl Future<Output = Result<R, Error>>,
        tell: impl FnOnce(R) -> Told,
    ) -> bool {
        let start = clock::now();
        let ended = match caller.patience {
            Some(patience) => timeout(patience, work).await.ok(),
            None => Some(work.await),
        };
        let end = clock::now();
        let Told { ended, read, source } = match ended {
            Some(Ok(result)) => tell(result),
            Some(Err(_)) => Told::without_record(Ended::Failed),
            None => Told::without_record(Ended::Dropped),
        };
        let call = Call { backend: caller.backend, ..self.stage.call(key, self.task, kind) };
        self.stage.recorder.record(Call { start, end, ended, read, source, committed, ..call });
        matches!(ended, Ended::Done | Ended::NothingThere)
    }

    /// A few rows get most of the calls, from all processes.
    fn draw_key(&mut self) -> u32 {
        let drawn = self.rng.random::<f64>().powi(4) * f64::from(self.stage.keys);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to below the number of keys"
        )]
        let key = drawn as u32;
        key.min(self.stage.keys - 1)
    }

    /// Some callers have a deadline.
    fn draw_caller(&mut self) -> Caller {
        let caller = self.stage.caller(self.rng.random_range(0..self.stage.caches.len()));
        let patience = Duration::from_micros(self.rng.random_range(0..10_000));
        Caller { patience: self.rng.random_bool(0.1).then_some(patience), ..caller }
    }

    fn draw_change(&mut self) -> Change {
        if self.rng.random_bool(0.15) {
            return Change::Delete;
        }
        let note =
            [NoteChange::Kept, NoteChange::Kept, NoteChange::Set, NoteChange::Removed][self.rng.random_range(0..4)];
        Change::Put(match self.rng.random_range(0..5) {
            0 => Fields::PRICE,
            1 => Fields::NAME,
            2 => Fields { note, ..Fields::PRICE },
            3 => Fields { price: self.rng.random(), stock: true, weight: self.rng.random(), name: false, note },
            _ => Fields { price: false, stock: self.rng.random(), weight: true, name: self.rng.random(), note },
        })
    }

    async fn rest(&mut self, most_micros: u64) {
        if self.rng.random_bool(0.5) {
            sleep(Duration::from_micros(self.rng.random_range(0..most_micros))).await;
        }
    }
}

/// A writer's commit.
struct Written {
    version: u64,
    row: Row,
    set: Fields,
}

impl Fields {
    const NONE: Self = Self { price: false, stock: false, weight: false, name: false, note: NoteChange::Kept };
    const PRICE: Self = Self { price: true, ..Self::NONE };
    const NAME: Self = Self { name: true, ..Self::NONE };
    const ALL: Self = Self { price: true, stock: true, weight: true, name: true, note: NoteChange::Set };
}

/// Half of the rows are only ever invalidated, by writers that don't coordinate.
fn is_updated_in_place(key: u32) -> bool {
    key % 2 == 1
}
