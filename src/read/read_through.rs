//! Read-through: the work of a flight, from the miss to the fill, by the backend's steps.
//!
//! Keeps these promises. A load starts only after its lease was granted. A record is stored only by the fill of the lease that
//! it was loaded under. A lease ends with its load, however the load ends. Every wait has a deadline, after which the load
//! goes around the cache, unless the flight's leader has a stale record to serve. A load that leaves nothing to store leaves a
//! mark, so that nobody waits for the next one in vain.
//!
//! *Size of futures.* Rare branches are boxed so that they don't enlarge the future of a common miss; a long part that
//! follows another is boxed too, so that no single allocation is large.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::Instrument;

use super::batch::Awaited;
use super::lease::{Lease, abandon, abandon_in_background, keep_renewing};
use super::loader::{self, Given, Loader, Loading};
use super::nested::Load;
use super::single_flight::{FlightResult, Timestamp};
use crate::backend::{Acquired, Filled, Mark, Token, Touched};
use crate::backoff::Backoff;
use crate::cache::{Bypass, Core, OnOutage, Outcome, Outgoing, ToStore};
use crate::error::Error;
use crate::metrics::{Counted, Stopwatch, spans};
#[cfg(feature = "__proof")]
use crate::proof::Guard;
use crate::record::{Found, Key, Meta, Reading, Record};

/// The shortest pause between two polls for another process' load: servers count a lease's PTTL in whole milliseconds.
const SHORTEST_POLL: Duration = Duration::from_millis(1);

/// One read-through of a key, with its loader.
pub(super) struct ReadThrough {
    pub(super) core: Arc<Core>,
    pub(super) key: Key,
    pub(super) loader: Loader,
    pub(super) load: Arc<Load>,
    /// While this exists, the loads of other keys in the same batch wait for this load.
    pub(super) awaited: Option<Awaited>,
    /// Whether its caller has waited for a load of this process that has left nothing.
    pub(super) has_waited: bool,
}

/// A wait for another process' load.
struct Wait {
    began: Stopwatch,
    deadline: Instant,
    pauses: Backoff,
    /// The first lease that is waited for.
    holder: Option<Token>,
}

/// The record that was found under the lease, and the notes in its entry.
pub(super) struct Granted {
    record: Record,
    meta: Meta,
}

impl Granted {
    /// `None` for an entry without a record.
    pub(super) fn of(core: &Core, found: &Found) -> Option<Self> {
        match found.read(core.shape) {
            Reading::Record(record) | Reading::Stale(record, _) => Some(Self { record, meta: found.entry.meta() }),
            Reading::NotFound | Reading::Unreadable(_) => None,
        }
    }
}

/// An entry that can be served: its record, where it is from, and its TTL.
type Served = (Option<Record>, Outcome, Option<Duration>);

impl ReadThrough {
    /// Finds an entry, or loads and fills one. Waits while another process loads.
    pub(super) async fn through_cache(mut self) -> FlightResult {
        let mut waiting: Option<Wait> = None;
        loop {
            let mut lease = Lease::new(&self.core, &self.key);
            let looked = Timestamp::of_step();
            // Before the lease is asked for: a change that comes right after the reply must end the pause below.
            let epoch = self.core.backend.key_epoch(&self.key);
            let acquired = match lease.acquire(|acquired| has_stale(&self.core, acquired)).await {
                Ok(acquired) => acquired,
                Err(error) if self.gives_up() => return FlightResult::failed(error),
                Err(error) => {
                    let why = Bypass::because_of(&error);
                    return self.without_cache(error, why).boxed().await;
                }
            };
            let served = self.answer_in(&acquired, waiting.is_some());
            let has_timed_out = waiting.as_ref().is_some_and(|wait| Instant::now() >= wait.deadline);
            let in_vain = self.load.is_needed() && self.has_waited_in_vain(waiting.as_ref(), &acquired);
            if let Some(wait) = &waiting
                && (served.is_some() || acquired.granted || has_timed_out || in_vain)
            {
                self.core.metrics.lock_wait.record(wait.began);
            }
            if let Some((record, outcome, ttl)) = served {
                if acquired.granted {
                    lease.give_back().boxed().await;
                }
                if let Some(held) = acquired.held.filter(|_| outcome.is_stale()) {
                    self.core.pauses.begin(&self.key, held.left);
                }
                return FlightResult { ttl, ..FlightResult::new(Ok(record), outcome, looked) };
            }
            if acquired.granted {
                let granted = acquired.found.and_then(|found| Granted::of(&self.core, &found));
                return self.under_lease(lease, granted).await;
            }
            if has_timed_out {
                return self.around_slow_load().boxed().await;
            }
            if let Some(orphan) = self.core.orphans.take(&self.key) {
                // The lease of a load of this process whose runtime shut down, which can't give it back itself.
                abandon(&self.core, &self.key, &orphan).boxed().await;
                continue;
            }
            if in_vain {
                return self.around_lease().boxed().await;
            }
            self.awaited = None;
            let wait = waiting.get_or_insert_with(|| Wait::new(&self.core));
            wait.note(&acquired);
            wait.pause(&self.core, &self.key, &acquired, epoch).boxed().await;
        }
    }

    /// The answer in the entry that was found, if it can be served. `is_new`: another process has filled it while this one
    /// waited.
    fn answer_in(&self, acquired: &Acquired, is_new: bool) -> Option<Served> {
        let found = acquired.found.as_ref()?;
        let reading = found.read(self.core.shape);
        // Otherwise the get's own read has reported it already.
        if self.core.selection.overlooks(&found.entry) {
            self.core.report_unreadable(&self.key, &reading);
        }
        let is_paused = acquired.mark() == Some(Mark::Failed);
        served(&self.core, found, reading, is_new).filter(|(_, outcome, _)| is_paused || !outcome.is_stale())
    }

    /// Whether the load that was waited for has left nothing: its mark is there no more only because another load has taken it
    /// over. An invalidation is no such reason, however many loads it overtakes: else all processes would load at once while a
    /// record is written often.
    fn has_waited_in_vain(&self, waiting: Option<&Wait>, acquired: &Acquired) -> bool {
        let lease = acquired.held.as_ref().map(|held| &held.by).filter(|lease| lease.is_after_mark());
        let Some(lease) = lease else { return false };
        self.has_waited || waiting.and_then(|wait| wait.holder.as_ref()).is_some_and(|first| first != lease)
    }

    /// Whether to end in place of a load around the cache, because all who have joined have a stale record to serve: it may be
    /// the primary that is slow. From here on nobody joins any more.
    fn gives_up(&self) -> bool {
        if self.load.is_needed() {
            return false;
        }
        self.core.flights.forget(&self.key, &self.load);
        !self.load.is_needed()
    }

    /// Loads without a lease, since the load that was waited for has left nothing, and the next one may leave nothing too.
    async fn around_lease(self) -> FlightResult {
        let (core, key) = (self.core.clone(), self.key.clone());
        let loaded = self.around_cache(Bypass::SlowLoad).await;
        let loaded = FlightResult { outcome: Outcome::Loaded, bypass: None, left_nothing: true, ..loaded };
        if loaded.record.is_ok() { loaded } else { after_failure(&core, &key, loaded).boxed().await }
    }

    /// Loads around the cache, because another process' load takes too long.
    async fn around_slow_load(self) -> FlightResult {
        let (core, key, keys) = (self.core.clone(), self.key.clone(), self.key.prefix());
        core.backend.repeats().warn(format!("other load {keys}"), |times| {
            tracing::warn!(keys, times, "another process' load takes too long: loading around the cache");
        });
        if self.gives_up() {
            let (action, limit) = (format!("waiting for another process to load {key}"), core.policy.wait_timeout);
            let advice = "make the loader faster, or raise wait_timeout";
            return FlightResult::failed(Error::Timeout { action, limit, advice });
        }
        let loaded = self.around_cache(Bypass::SlowLoad).await;
        if loaded.record.is_ok() {
            return loaded;
        }
        after_failure(&core, &key, loaded).boxed().await
    }

    /// Loads around a cache that can't be used, once fewer than `max_bypass_loads` do so.
    pub(super) async fn without_cache(mut self, error: Error, why: Bypass) -> FlightResult {
        tracing::debug!(key = %self.key, %error, "the cache can't be used");
        let failed = |error| FlightResult::bypassed(Err(error), why, Timestamp::of_step());
        let (core, limit) = (self.core.clone(), self.core.policy.wait_timeout);
        // An id that can't be part of a key is no outage.
        if core.policy.on_outage == OnOutage::Fail && why != Bypass::InvalidId {
            return failed(error);
        }
        if let Ok(_turn) = core.bypass_loads.try_acquire() {
            self.load.hold_turn();
            return self.around_cache(why).boxed().await;
        }
        self.awaited = None;
        let load = self.load.clone();
        let turn = async {
            tokio::select! {
                turn = core.bypass_loads.acquire() => Some(turn),
                () = load.turn_lent() => None,
            }
        };
        match tokio::time::timeout(limit, turn).await {
            Ok(_turn) => {
                self.load.hold_turn();
                self.around_cache(why).boxed().await
            }
            Err(_elapsed) => {
                let action = format!("waiting for the turn to load {} around the cache", self.key);
                let advice = "make the loader faster, or raise max_bypass_loads";
                failed(Error::Timeout { action, limit, advice })
            }
        }
    }

    /// Loads without a lease, and stores nothing.
    pub(super) async fn around_cache(self, why: Bypass) -> FlightResult {
        let justified = Timestamp::of_step();
        let Self { core, key, loader, load, awaited, .. } = self;
        let (limit, counted) = (core.policy.load_timeout, Counted::begin(&core.metrics, loader.is_batched));
        let span = spans::load(core.shape, &key, loader.is_batched);
        let loading = async {
            let loaded = load.run(async { begin(loader, awaited, None, limit).await }).await?;
            loaded.record(None)
        };
        let record = loader::run_here(&key, limit, loading).instrument(span.clone()).await;
        counted.end(&span, &record);
        FlightResult::bypassed(record, why, justified)
    }

    /// Loads and fills. If the load fails, serves the stale entry, and leaves a failure mark so that no process loads for a while.
    async fn under_lease(self, lease: Lease, granted: Option<Granted>) -> FlightResult {
        let (core, key) = (self.core.clone(), self.key.clone());
        let loaded = self.load_and_fill(&lease, granted).boxed().await;
        if loaded.record.is_ok() {
            lease.end();
            return loaded;
        }
        let result = after_failure(&core, &key, loaded).boxed().await;
        if let Outcome::Stale { age, .. } = result.outcome {
            let keys = key.prefix();
            core.backend.repeats().warn(format!("stale {keys}"), |times| {
                tracing::warn!(keys, ?age, times, "a load failed: its stale entry is served");
            });
            core.pauses.begin(&key, core.policy.stale_retry);
            lease.mark(Mark::Failed).boxed().await;
        } else if result.record.is_ok() {
            lease.give_back().boxed().await;
        } else {
            lease.mark(Mark::Unstored).boxed().await;
        }
        result
    }

    /// Loads under a lease, which the fill then uses up. If the load fails, the lease is still held.
    pub(super) async fn load_and_fill(self, lease: &Lease, granted: Option<Granted>) -> FlightResult {
        let (core, key, token) = (self.core.clone(), self.key.clone(), &lease.token);
        let load_began = Timestamp::of_step();
        let loaded = {
            let (load, renewing) = (pin!(self.load(granted)), pin!(keep_renewing(&core, &key, token)));
            tokio::select! {
                loaded = load => loaded,
                never = renewing => match never {},
            }
        };
        let result = |record, justified| FlightResult::new(record, Outcome::Loaded, justified);
        let Outgoing { record, store } = match loaded {
            Ok(outgoing) => outgoing,
            Err(error) => return result(Err(error), load_began),
        };
        let (sent, ttl) = (Timestamp::of_step(), store.ttl());
        match store_under_lease(&core, &key, lease, record.as_ref(), store).boxed().await {
            Ok(Filled::Accepted) => {
                let left_nothing = ttl.is_none();
                // A lease that another server has brought back may have been revoked since it was granted.
                let justified = if lease.is_at_other_server() { load_began } else { sent };
                return FlightResult { ttl, is_stored: true, left_nothing, ..result(Ok(record), justified) };
            }
            Ok(Filled::Fenced) => core.metrics.counts.fenced_fills.add(),
            Err(error) => {
                tracing::debug!(%key, %error, "a loaded record may not have been stored");
                abandon_in_background(&core, &key, token);
            }
        }
        result(Ok(record), load_began)
    }

    /// Runs the loader, and encodes its record in the same task, since that runs the user's code too.
    async fn load(self, granted: Option<Granted>) -> Result<Outgoing, Error> {
        let Self { core, key, loader, load, awaited, .. } = self;
        let (limit, counted) = (core.policy.load_timeout, Counted::begin(&core.metrics, loader.is_batched));
        let span = spans::load(core.shape, &key, loader.is_batched);
        // A loader of many records is given none.
        let granted = granted.filter(|_| !loader.is_batched);
        #[cfg(feature = "__proof")]
        let granted = granted.map(|granted| match load.seen_by_leader.get() {
            Some(seen) if !core.backend.enforces(Guard::GrantedRecord) => Granted { record: seen.clone(), ..granted },
            _ => granted,
        });
        let work = {
            let (core, key) = (core.clone(), key.clone());
            async move {
                let began = Instant::now();
                let given = granted.as_ref().map(|granted| granted.record.clone());
                let loaded = load.run(async { begin(loader, awaited, given, limit).await }).await?;
                let granted = granted.map(|granted| (granted.record, granted.meta));
                core.outgoing(&key, &loaded, granted, began.elapsed())
            }
        };
        let outgoing = loader::run(&key, limit, work.instrument(span.clone())).await;
        counted.end(&span, &outgoing);
        outgoing
    }
}

impl Wait {
    fn new(core: &Core) -> Self {
        let policy = &core.policy;
        Self {
            began: Stopwatch::start(),
            deadline: Instant::now() + policy.wait_timeout,
            pauses: Backoff::new(policy.wait_poll / 8, policy.wait_poll),
            holder: None,
        }
    }

    fn note(&mut self, acquired: &Acquired) {
        let lease = acquired.held.as_ref().filter(|_| acquired.mark().is_none());
        self.holder = self.holder.take().or_else(|| lease.map(|held| held.by.clone()));
    }

    /// Pauses until the entry has changed since `epoch`, the lease has expired, or the next poll is due.
    async fn pause(&mut self, core: &Core, key: &Key, acquired: &Acquired, epoch: Option<u64>) {
        let began = Instant::now();
        let busy_for = acquired.held.as_ref().map(|held| held.left);
        let pause = self.pauses.next().min(busy_for.unwrap_or(Duration::MAX)).max(SHORTEST_POLL);
        // At least this long: changes of this key, or of another that shares its epoch, may come all the time.
        tokio::time::sleep_until(began + SHORTEST_POLL).await;
        let changed = core.backend.changed_since(key, epoch);
        let _ = tokio::time::timeout_at(self.deadline.min(began + pause), changed).await;
    }
}

/// Begins a load. Once it has asked for its record, the batch no longer waits for it.
fn begin(loader: Loader, awaited: Option<Awaited>, stale: Option<Record>, limit: Duration) -> Loading {
    let loading = (loader.run)(Given { stale, deadline: std::time::Instant::now() + limit });
    drop(awaited);
    loading
}

/// Stores what a load has left, if it still holds its lease.
async fn store_under_lease(
    core: &Core,
    key: &Key,
    lease: &Lease,
    record: Option<&Record>,
    store: ToStore,
) -> Result<Filled, Error> {
    let (backend, token) = (&core.backend, &lease.token);
    let (fields, lifetime) = match store {
        ToStore::Entry { fields, lifetime } => (fields, lifetime.total()),
        ToStore::Nothing => (Vec::new(), core.policy.unstored_mark()),
        ToStore::SameEntry { meta, lifetime } => {
            let touched = match lease.is_at_other_server() {
                false => backend.touch(key, token, meta, lifetime.total()).boxed().await?,
                true => Touched::Gone,
            };
            match touched {
                Touched::Accepted => return Ok(Filled::Accepted),
                Touched::Fenced => return Ok(Filled::Fenced),
                Touched::Gone => match record.and_then(|record| core.fields(key, record, lifetime.meta)) {
                    Some(fields) => (fields, lifetime.total()),
                    None => (Vec::new(), core.policy.unstored_mark()),
                },
            }
        }
    };
    backend.fill(key, token, fields, lifetime).await
}

/// The answer that an entry is, if this cache can serve it.
fn served(core: &Core, found: &Found, reading: Reading<Record>, is_new: bool) -> Option<Served> {
    let outcome = |hit| if is_new { Outcome::Waited } else { hit };
    match reading {
        Reading::Record(record) => Some((Some(record), outcome(Outcome::Hit), found.ttl())),
        Reading::Stale(record, age) if core.policy.serves_after_failure(age) => {
            Some((Some(record), Outcome::Stale { age, revalidating: false }, None))
        }
        Reading::NotFound => Some((None, outcome(Outcome::NotFoundHit), found.ttl())),
        Reading::Stale(..) | Reading::Unreadable(_) => None,
    }
}

/// Whether a stale record was found that this cache serves while a failed load is not tried again.
pub(super) fn has_stale(core: &Core, acquired: &Acquired) -> bool {
    let is_served = |found: &Found| served(core, found, found.read(core.shape), false);
    acquired.found.as_ref().and_then(is_served).is_some_and(|(_, outcome, _)| outcome.is_stale())
}

/// The entry that still exists after a failed load, or else the failure.
async fn after_failure(core: &Core, key: &Key, failed: FlightResult) -> FlightResult {
    if core.policy.stale_tail().is_none() || core.backend.is_pending(key) {
        return failed;
    }
    let looked = Timestamp::of_step();
    let found = match core.backend.read(key, &core.selection, true).await {
        Ok(found) => found.and_then(|found| served(core, &found, found.read(core.shape), true)),
        // The backend has logged the error.
        Err(_) => None,
    };
    let Some((record, outcome, ttl)) = found else {
        return failed;
    };
    tracing::debug!(%key, error = failed.record.err().map(tracing::field::display), "an entry is served in place of a failed load");
    FlightResult { ttl, ..FlightResult::new(Ok(record), outcome, looked) }
}
