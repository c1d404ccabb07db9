//! Read-through: the work of a flight, from the miss to the fill, by the backend's steps.
//!
//! Keeps these promises. A load starts only after its lease was granted. A record is stored only by the fill of the lease that
//! it was loaded under. A lease ends with its load, however the load ends. Every wait has a deadline, after which the load
//! goes around the cache. A stale entry is served only if it still exists after its load has failed.
//!
//! *Size of futures.* Rare branches are boxed so that they don't enlarge the future of a common miss; a long part that
//! follows another is boxed too, so that no single allocation is large.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::Instrument;

use super::batch::Awaited;
use super::lease::{Lease, abandon, abandon_in_background, keep_renewing};
use super::loader::{self, Loader, Loading};
use super::single_flight::{FlightResult, Timestamp};
use crate::backend::{Acquired, Filled, Token};
use crate::backoff::Backoff;
use crate::cache::{Core, OnOutage, Outcome};
use crate::error::Error;
use crate::metrics::{Stopwatch, spans};
use crate::record::{Key, Reading, Record, StoredField};

/// The shortest pause between two polls for another process' load: servers count a lease's PTTL in whole milliseconds.
const SHORTEST_POLL: Duration = Duration::from_millis(1);

/// One read-through of a key, with its loader.
pub(super) struct ReadThrough {
    pub(super) core: Arc<Core>,
    pub(super) key: Key,
    pub(super) loader: Loader,
    /// While this exists, the loads of other keys in the same batch wait for this load.
    pub(super) awaited: Option<Awaited>,
}

/// A wait for another process' load.
struct Wait {
    began: Stopwatch,
    deadline: Instant,
    pauses: Backoff,
}

/// A loaded record, with the fields and the lifetime of its entry. No fields: nothing is to be stored.
struct Loaded {
    record: Option<Record>,
    fields: Vec<StoredField>,
    ttl: Duration,
}

impl ReadThrough {
    /// Finds an entry, or loads and fills one. Waits while another process loads.
    pub(super) async fn through_cache(mut self) -> FlightResult {
        let mut waiting: Option<Wait> = None;
        loop {
            let mut lease = Lease::new(&self.core, &self.key);
            let looked = Timestamp::of_step();
            // Before the lease is asked for: a change that comes right after the reply must end the pause below.
            let epoch = self.core.backend.key_epoch(&self.key);
            let mut acquired = match lease.acquire().await {
                Ok(acquired) => acquired,
                Err(error) => return self.without_cache(error).boxed().await,
            };
            let found = self.answer_in(&mut acquired, waiting.is_some());
            let has_timed_out = waiting.as_ref().is_some_and(|wait| Instant::now() >= wait.deadline);
            if let Some(wait) = &waiting
                && (found.is_some() || acquired.granted || has_timed_out)
            {
                self.core.metrics.lock_wait.record(wait.began);
            }
            if let Some((record, outcome)) = found {
                if acquired.granted {
                    lease.give_back().boxed().await;
                }
                return FlightResult { record: Ok(record), outcome, justified: looked };
            }
            if acquired.granted {
                return self.under_lease(lease).await;
            }
            if has_timed_out {
                return self.around_slow_load().boxed().await;
            }
            if let Some(orphan) = self.core.orphans.take(&self.key) {
                // The lease of a load of this process whose runtime shut down, which can't give it back itself.
                abandon(&self.core, &self.key, &orphan).boxed().await;
                continue;
            }
            if acquired.cooling_down {
                // There is no stale entry to serve, so don't honour the failure mark.
                abandon(&self.core, &self.key, &Token::failure_mark()).boxed().await;
            }
            self.awaited = None;
            let wait = waiting.get_or_insert_with(|| Wait::new(&self.core));
            wait.pause(&self.core, &self.key, acquired.busy_for, epoch).boxed().await;
        }
    }

    /// The answer in the entry that was found, if it can be served. `is_new`: another process has filled it while this one
    /// waited.
    fn answer_in(&self, acquired: &mut Acquired, is_new: bool) -> Option<(Option<Record>, Outcome)> {
        let found = acquired.found.take()?;
        let reading = found.read(self.core.shape);
        // Otherwise the get's own read has reported it already.
        if self.core.selection.overlooks(&found.entry) {
            self.core.report_unreadable(&self.key, &reading);
        }
        let serves_stale = acquired.cooling_down && self.core.policy.stale_if_error.is_some();
        served(reading, is_new).filter(|(_, outcome)| serves_stale || !matches!(outcome, Outcome::Stale { .. }))
    }

    /// Loads around the cache, because another process' load takes too long.
    async fn around_slow_load(self) -> FlightResult {
        let (core, key, keys) = (self.core.clone(), self.key.clone(), self.key.prefix());
        core.backend.repeats().warn(format!("other load {keys}"), |times| {
            tracing::warn!(keys, times, "another process' load takes too long: loading around the cache");
        });
        let loaded = self.around_cache().await;
        if loaded.record.is_ok() {
            return loaded;
        }
        after_failure(&core, &key, loaded).boxed().await
    }

    /// Loads around a cache that can't be used, once fewer than `max_bypass_loads` do so.
    pub(super) async fn without_cache(mut self, error: Error) -> FlightResult {
        tracing::debug!(key = %self.key, %error, "the cache can't be used");
        let failed =
            |error| FlightResult { record: Err(error), outcome: Outcome::Bypassed, justified: Timestamp::of_step() };
        let (core, limit) = (self.core.clone(), self.core.policy.wait_timeout);
        // An id that can't be part of a key is no outage.
        if core.policy.on_outage == OnOutage::Fail && !matches!(error, Error::InvalidId { .. }) {
            return failed(error);
        }
        if let Ok(_turn) = core.bypass_loads.try_acquire() {
            return self.around_cache().boxed().await;
        }
        self.awaited = None;
        match tokio::time::timeout(limit, core.bypass_loads.acquire()).await {
            Ok(_turn) => self.around_cache().boxed().await,
            Err(_elapsed) => {
                let action = format!("waiting for the turn to load {} around the cache", self.key);
                let advice = "make the loader faster, or raise max_bypass_loads";
                failed(Error::Timeout { action, limit, advice })
            }
        }
    }

    /// Loads without a lease, and stores nothing.
    pub(super) async fn around_cache(self) -> FlightResult {
        let justified = Timestamp::of_step();
        let Self { core, key, loader, awaited } = self;
        let load = loader::run_here(&key, core.policy.load_timeout, async { begin(loader, awaited).await });
        let load = pin!(load.instrument(spans::load(core.shape, &key)));
        let record = counted(&core, load).await;
        FlightResult { record, outcome: Outcome::Bypassed, justified }
    }

    /// Loads and fills. If the load fails, serves the stale entry, and leaves a failure mark so that no process loads for a while.
    async fn under_lease(self, lease: Lease) -> FlightResult {
        let (core, key) = (self.core.clone(), self.key.clone());
        let loaded = self.load_and_fill(&lease.token).boxed().await;
        if loaded.record.is_ok() {
            lease.end();
            return loaded;
        }
        let result = after_failure(&core, &key, loaded).boxed().await;
        if let Outcome::Stale { age } = result.outcome {
            let keys = key.prefix();
            core.backend.repeats().warn(format!("stale {keys}"), |times| {
                tracing::warn!(keys, ?age, times, "a load failed: its stale entry is served");
            });
            lease.mark_failed().boxed().await;
        } else {
            lease.give_back().boxed().await;
        }
        result
    }

    /// Loads under a lease, which the fill then uses up. If the load fails, the lease is still held.
    pub(super) async fn load_and_fill(self, token: &Token) -> FlightResult {
        let (core, key) = (self.core.clone(), self.key.clone());
        let load_began = Timestamp::of_step();
        let loaded = {
            let (load, renewing) = (pin!(self.load()), pin!(keep_renewing(&core, &key, token)));
            tokio::select! {
                loaded = load => loaded,
                never = renewing => match never {},
            }
        };
        let result = |record, justified| FlightResult { record, outcome: Outcome::Loaded, justified };
        let Loaded { record, fields, ttl } = match loaded {
            Ok(loaded) => loaded,
            Err(error) => return result(Err(error), load_began),
        };
        let fill_sent = Timestamp::of_step();
        match core.backend.fill(&key, token, fields, ttl).boxed().await {
            Ok(Filled::Accepted) => return result(Ok(record), fill_sent),
            Ok(Filled::Fenced) => core.metrics.counts.fenced_fills.add(),
            Err(error) => {
                tracing::debug!(%key, %error, "a loaded record may not have been stored");
                abandon_in_background(&core, &key, token);
            }
        }
        result(Ok(record), load_began)
    }

    /// Runs the loader, and encodes its record in the same task, since that runs the user's code too.
    async fn load(self) -> Result<Loaded, Error> {
        let Self { core, key, loader, awaited } = self;
        let work = {
            let (core, key) = (core.clone(), key.clone());
            async move {
                let began = Instant::now();
                let record = begin(loader, awaited).await?;
                let (fields, ttl) = core.entry(&key, record.as_ref(), began.elapsed()).unwrap_or_default();
                Ok(Loaded { record, fields, ttl })
            }
        };
        let load = pin!(loader::run(&key, core.policy.load_timeout, work.instrument(spans::load(core.shape, &key))));
        counted(&core, load).await
    }
}

impl Wait {
    fn new(core: &Core) -> Self {
        let policy = &core.policy;
        Self {
            began: Stopwatch::start(),
            deadline: Instant::now() + policy.wait_timeout,
            pauses: Backoff::new(policy.wait_poll / 8, policy.wait_poll),
        }
    }

    /// Pauses until the entry has changed since `epoch`, the lease has expired, or the next poll is due.
    async fn pause(&mut self, core: &Core, key: &Key, busy_for: Option<Duration>, epoch: Option<u64>) {
        let began = Instant::now();
        let pause = self.pauses.next().min(busy_for.unwrap_or(Duration::MAX)).max(SHORTEST_POLL);
        // At least this long: changes of this key, or of another that shares its epoch, may come all the time.
        tokio::time::sleep_until(began + SHORTEST_POLL).await;
        let changed = core.backend.changed_since(key, epoch);
        let _ = tokio::time::timeout_at(self.deadline.min(began + pause), changed).await;
    }
}

/// Begins a load. Once it has asked for its record, the batch no longer waits for it.
fn begin(loader: Loader, awaited: Option<Awaited>) -> Loading {
    let loading = loader();
    drop(awaited);
    loading
}

/// The answer that an entry is, if it can be served.
fn served(reading: Reading<Record>, is_new: bool) -> Option<(Option<Record>, Outcome)> {
    let outcome = |hit| if is_new { Outcome::Waited } else { hit };
    match reading {
        Reading::Record(record) => Some((Some(record), outcome(Outcome::Hit))),
        Reading::Stale(record, age) => Some((Some(record), Outcome::Stale { age })),
        Reading::NotFound => Some((None, outcome(Outcome::NotFoundHit))),
        Reading::Unreadable(_) => None,
    }
}

/// The entry that still exists after a failed load, or else the failure.
async fn after_failure(core: &Core, key: &Key, failed: FlightResult) -> FlightResult {
    if core.policy.stale_if_error.is_none() || core.backend.is_pending(key) {
        return failed;
    }
    let looked = Timestamp::of_step();
    let found = match core.backend.read(key, &core.selection, true).await {
        Ok(found) => found.and_then(|found| served(found.read(core.shape), true)),
        // The backend has logged the error.
        Err(_) => None,
    };
    let Some((record, outcome)) = found else {
        return failed;
    };
    tracing::debug!(%key, error = failed.record.err().map(tracing::field::display), "an entry is served in place of a failed load");
    FlightResult { record: Ok(record), outcome, justified: looked }
}

async fn counted<R>(core: &Core, load: Pin<&mut impl Future<Output = Result<R, Error>>>) -> Result<R, Error> {
    core.metrics.counts.loads.add();
    let began = Stopwatch::start();
    let loaded = load.await;
    core.metrics.load_ended(loaded.is_ok(), began);
    loaded
}
