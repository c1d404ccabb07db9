//! Read-through: what a flight does, from the miss to the fill, over the backend's steps.
//!
//! Keeps these promises: a load starts only after its lease was granted; a value is stored only by the fill of the lease
//! that it was loaded under; a lease ends with its load, whatever becomes of it; every wait has a deadline, after which
//! the load goes around the cache; a stale entry is served only if it is still there after its load has failed.
//!
//! What is rare is boxed by itself, so that the memory of a flight is that of a common miss. What follows another long part
//! is boxed too, so that no allocation is large.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::Instrument;

use crate::backend::{Acquired, Filled, Token};
use crate::batch::Awaited;
use crate::cache::{Core, OnOutage, Outcome};
use crate::cacheable::Cacheable;
use crate::entry::{self, Found, Reading};
use crate::error::Error;
use crate::flight::{Landing, Stamp};
use crate::key::Key;
use crate::load::{self, Loader, Loading};
use crate::meter::Began;
use crate::pause::Backoff;
use crate::record::StoredField;
use crate::spans;

/// Between looks at another process' load at least: as exact as the server tells how long a lease will last.
const SHORTEST_POLL: Duration = Duration::from_millis(1);

/// One read-through: of this key, with this loader.
pub(crate) struct ReadThrough<T: Cacheable> {
    pub(crate) core: Arc<Core<T>>,
    pub(crate) key: Key,
    pub(crate) id: T::Id,
    pub(crate) loader: Loader<T>,
    /// While it is there, the loads of other keys that share the loader's call wait for this one.
    pub(crate) awaited: Option<Awaited>,
}

/// A loaded value, with the entry to store for it, which has no fields if nothing is to be stored, and its lifetime.
struct Loaded<T> {
    value: Option<Arc<T>>,
    fields: Vec<StoredField>,
    ttl: Duration,
}

impl<T: Cacheable> ReadThrough<T> {
    /// Finds an entry, or loads and fills one; waits for another process that does.
    pub(crate) async fn through_cache(mut self) -> Landing<T> {
        let policy = &self.core.policy;
        let mut pauses = Backoff::new(policy.wait_poll / 8, policy.wait_poll);
        let mut waiting = None;
        loop {
            let mut lease = Lease::new(&self.core, &self.key);
            let looked = Stamp::of_step();
            let told = self.core.backend.told(&self.key);
            let acquired = match lease.acquire().await {
                Ok(acquired) => acquired,
                Err(error) => return self.without_cache(error).boxed().await,
            };
            let serves_stale = acquired.postponed && policy.stale_if_error.is_some();
            let found = match acquired.found.map(|found| self.reading(&found)) {
                Some(Reading::Stale(..)) if !serves_stale => None,
                found => found.and_then(|reading| served(reading, waiting.is_some())),
            };
            let waited = || {
                if let Some((began, _)) = waiting {
                    self.core.meter.lock_wait.ended(began);
                }
            };
            if let Some((value, outcome)) = found {
                waited();
                if acquired.granted {
                    lease.give_back().boxed().await;
                }
                return Landing { result: Ok(value), outcome, justified: looked };
            }
            if acquired.granted {
                waited();
                return self.under_lease(lease).await;
            }
            let now = Instant::now();
            if let Some((_, deadline)) = waiting
                && now >= deadline
            {
                waited();
                let keys = self.key.prefix();
                self.core.backend.repeats().warn(format!("other load {keys}"), |times| {
                    tracing::warn!(keys, times, "another process' load takes too long: loading around the cache");
                });
                let (core, key) = (self.core.clone(), self.key.clone());
                let landing = self.around_cache().boxed().await;
                return if landing.result.is_err() {
                    after_failure(&core, &key, landing).boxed().await
                } else {
                    landing
                };
            }
            if let Some(orphan) = self.core.orphans.take(&self.key) {
                // A load of this process has ended with its runtime, and can't give its lease back itself.
                abandon(&self.core, &self.key, &orphan).boxed().await;
                continue;
            }
            if acquired.postponed {
                // There is nothing to serve instead: the mark is only in the way.
                abandon(&self.core, &self.key, &Token::failed_load()).boxed().await;
            }
            self.awaited = None;
            let (_, deadline) = *waiting.get_or_insert_with(|| (Began::now(), now + policy.wait_timeout));
            let pause = pauses.next().min(acquired.busy_for.unwrap_or(Duration::MAX)).max(SHORTEST_POLL);
            let fill = self.core.backend.told_since(&self.key, told);
            let wait = async {
                // Something may be told all the time, about this key or another.
                tokio::time::sleep_until(now + SHORTEST_POLL).await;
                let _told_or_not = tokio::time::timeout_at(deadline.min(now + pause), fill).await;
            };
            wait.boxed().await;
        }
    }

    fn reading(&self, found: &Found) -> Reading<T> {
        // Otherwise those who looked first have told of what is unreadable.
        if self.core.selection.overlooks(&found.entry) {
            self.core.read(&self.key, found, entry::decode)
        } else {
            found.read()
        }
    }

    /// Loads around a cache that can't be used, when it is this load's turn.
    pub(crate) async fn without_cache(mut self, error: Error) -> Landing<T> {
        tracing::debug!(key = %self.key, %error, "the cache can't be used");
        let failed = |error| Landing { result: Err(error), outcome: Outcome::Bypassed, justified: Stamp::of_step() };
        let (core, limit) = (self.core.clone(), self.core.policy.wait_timeout);
        if core.policy.on_outage == OnOutage::Fail {
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
    pub(crate) async fn around_cache(self) -> Landing<T> {
        let justified = Stamp::of_step();
        let Self { core, key, id, loader, awaited } = self;
        let load = load::run_here(&key, core.policy.load_timeout, async { begin(loader, id, awaited).await });
        let load = pin!(load.instrument(spans::load::<T>(&key)));
        let loaded = counted(&core, load).await;
        Landing { result: loaded.map(|record| record.map(Arc::new)), outcome: Outcome::Bypassed, justified }
    }

    /// Loads and fills; if that fails, lands with the stale entry, which then is not loaded again for a while.
    async fn under_lease(self, lease: Lease<T>) -> Landing<T> {
        let (core, key) = (self.core.clone(), self.key.clone());
        let landing = self.load_and_fill(&lease.token).boxed().await;
        if landing.result.is_ok() {
            lease.end();
            return landing;
        }
        let landing = after_failure(&core, &key, landing).boxed().await;
        if let Outcome::Stale { age } = landing.outcome {
            let keys = key.prefix();
            core.backend.repeats().warn(format!("stale {keys}"), |times| {
                tracing::warn!(keys, ?age, times, "a load failed: its stale entry is served");
            });
            postpone(&core, &key, lease.token.clone()).boxed().await;
            lease.end();
        } else {
            lease.give_back().boxed().await;
        }
        landing
    }

    /// Loads under a lease, which the fill then uses up. If the load failed, the lease is still there.
    pub(crate) async fn load_and_fill(self, token: &Token) -> Landing<T> {
        let (core, key) = (self.core.clone(), self.key.clone());
        let load_began = Stamp::of_step();
        let loaded = {
            let (load, renewing) = (pin!(self.load()), pin!(keep_renewing(&core, &key, token)));
            tokio::select! {
                loaded = load => loaded,
                never = renewing => match never {},
            }
        };
        let landing = |result, justified| Landing { result, outcome: Outcome::Loaded, justified };
        let Loaded { value, fields, ttl } = match loaded {
            Ok(loaded) => loaded,
            Err(error) => return landing(Err(error), load_began),
        };
        let fill_sent = Stamp::of_step();
        match core.backend.fill(&key, token, fields, ttl).boxed().await {
            Ok(Filled::Accepted) => return landing(Ok(value), fill_sent),
            Ok(Filled::Fenced) => core.meter.counts.fenced_fills.add(),
            Err(error) => {
                tracing::debug!(%key, %error, "a loaded record may not have been stored");
                abandon_in_background(core, key, token.clone());
            }
        }
        landing(Ok(value), load_began)
    }

    /// Runs the loader, and prepares what is to be stored in the loader's own task: that runs the user's code too.
    async fn load(self) -> Result<Loaded<T>, Error> {
        let Self { core, key, id, loader, awaited } = self;
        let work = {
            let (core, key) = (core.clone(), key.clone());
            async move {
                let began = Instant::now();
                let record = begin(loader, id, awaited).await?;
                let entry = core.policy.entry(&key, record.as_ref(), began.elapsed(), core.backend.repeats());
                let (fields, ttl) = entry.unwrap_or_default();
                Ok(Loaded { value: record.map(Arc::new), fields, ttl })
            }
        };
        let load = pin!(load::run(&key, core.policy.load_timeout, work.instrument(spans::load::<T>(&key))));
        counted(&core, load).await
    }
}

/// Begins a load. It has asked for its record then: others that share its call don't wait for it any more.
fn begin<T: Cacheable>(loader: Loader<T>, id: T::Id, awaited: Option<Awaited>) -> Loading<T> {
    let loading = loader(id);
    drop(awaited);
    loading
}

/// What an entry is to those who get it, if it can be served. `is_new`: another process' load has put it there while they
/// waited.
fn served<T>(reading: Reading<T>, is_new: bool) -> Option<(Option<Arc<T>>, Outcome)> {
    let outcome = |hit| if is_new { Outcome::Waited } else { hit };
    match reading {
        Reading::Record(record) => Some((Some(Arc::new(record)), outcome(Outcome::Hit))),
        Reading::Stale(record, age) => Some((Some(Arc::new(record)), Outcome::Stale { age })),
        Reading::NotFound => Some((None, outcome(Outcome::NotFoundHit))),
        Reading::Unreadable(_) => None,
    }
}

/// Where a failed load lands: with the entry that is still there after the failure, else with its error.
async fn after_failure<T: Cacheable>(core: &Core<T>, key: &Key, failed: Landing<T>) -> Landing<T> {
    if core.policy.stale_if_error.is_none() || core.backend.is_pending(key) {
        return failed;
    }
    let looked = Stamp::of_step();
    let found = match core.backend.read(key, &core.selection, true).await {
        Ok(found) => found.and_then(|found| served(found.read(), true)),
        // The backend has logged the error.
        Err(_) => None,
    };
    let Some((value, outcome)) = found else {
        return failed;
    };
    tracing::debug!(%key, error = failed.result.err().map(tracing::field::display), "a failed load is made up for by an entry");
    Landing { result: Ok(value), outcome, justified: looked }
}

async fn counted<T: Cacheable, R>(
    core: &Core<T>,
    load: Pin<&mut impl Future<Output = Result<R, Error>>>,
) -> Result<R, Error> {
    core.meter.counts.loads.add();
    let began = Began::now();
    let loaded = load.await;
    core.meter.load_ended(loaded.is_ok(), began);
    loaded
}

/// After a step whose outcome is unknown: the lease may be the token's. Nobody waits for a backend that doesn't answer.
fn abandon_in_background<T: Cacheable>(core: Arc<Core<T>>, key: Key, token: Token) {
    tokio::spawn(async move { abandon(&core, &key, &token).await });
}

async fn abandon<T: Cacheable>(core: &Core<T>, key: &Key, token: &Token) {
    if let Err(error) = core.backend.abandon(key, token).await {
        tracing::debug!(%key, %error, "a lease could not be given back and will run out");
    }
}

async fn postpone<T: Cacheable>(core: &Arc<Core<T>>, key: &Key, token: Token) {
    if let Err(error) = core.backend.postpone(key, &token, core.policy.stale_retry).await {
        tracing::debug!(%key, %error, "a failed load could not be postponed");
        abandon_in_background(core.clone(), key.clone(), token);
    }
}

/// The leases of loads that have ended with their runtime. The next flight of the key gives them back.
#[derive(Default)]
pub(crate) struct Orphans {
    leases: DashMap<Key, (Token, Instant)>,
}

impl Orphans {
    fn take(&self, key: &Key) -> Option<Token> {
        if self.leases.is_empty() {
            return None;
        }
        self.leases.remove(key).map(|(_, (token, _))| token)
    }

    fn add(&self, key: Key, token: Token, lease: Duration) {
        // Those that have run out need nobody any more.
        self.leases.retain(|_, (_, since)| since.elapsed() < lease);
        self.leases.insert(key, (token, Instant::now()));
    }
}

/// A lease that may be held. It becomes an orphan when it is dropped before it [has ended](Self::end): the future of its load
/// went with its runtime.
pub(crate) struct Lease<T: Cacheable> {
    core: Arc<Core<T>>,
    key: Key,
    pub(crate) token: Token,
    has_ended: bool,
}

impl<T: Cacheable> Lease<T> {
    pub(crate) fn new(core: &Arc<Core<T>>, key: &Key) -> Self {
        Self { core: core.clone(), key: key.clone(), token: core.backend.new_token(), has_ended: false }
    }

    pub(crate) async fn acquire(&mut self) -> Result<Acquired, Error> {
        let acquired = self.core.backend.acquire(&self.key, &mut self.token, self.core.policy.lock_ttl).await;
        self.has_ended = !acquired.as_ref().is_ok_and(|acquired| acquired.granted);
        if acquired.is_err() {
            abandon_in_background(self.core.clone(), self.key.clone(), self.token.clone());
        }
        acquired
    }

    pub(crate) async fn give_back(self) {
        abandon(&self.core, &self.key, &self.token).await;
        self.end();
    }

    /// The lease is used up, given back, or somebody's who will do that.
    pub(crate) fn end(mut self) {
        self.has_ended = true;
    }
}

impl<T: Cacheable> Drop for Lease<T> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.core.orphans.add(self.key.clone(), self.token.clone(), self.core.policy.lock_ttl);
        }
    }
}

/// Renews a lease until it is lost; then there is nothing left to do but to let the load end, and its fill be fenced.
async fn keep_renewing<T: Cacheable>(core: &Core<T>, key: &Key, token: &Token) -> std::convert::Infallible {
    let lease = core.policy.lock_ttl;
    loop {
        tokio::time::sleep(lease / 3).await;
        if let Ok(false) = core.backend.renew(key, token, lease).boxed().await {
            core.meter.leases_lost.count(1);
            return std::future::pending().await;
        }
    }
}
