//! `refresh`: loads a record anew over the entry that is there, which stays if the load fails.
//!
//! It never returns what was loaded before it was called: it takes no result of a holder that was there before, and calls share
//! a refresh only if its load began after both.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::Instrument;

use super::get::{Answer, Get, Request, record_outcome};
use super::lease::{Lease, abandon};
use super::read_through::{Granted, ReadThrough, has_stale};
use super::single_flight::{FlightResult, Role, Timestamp};
use crate::backend::{Mark, check_runtime};
use crate::backoff::Backoff;
use crate::cache::{Bypass, Core};
use crate::error::Error;
use crate::metrics::{Stopwatch, spans};

impl Core {
    /// Loads the record, stores it in place of the entry that is there, and invalidates its other versions.
    pub(crate) async fn refresh(self: &Arc<Self>, request: &mut dyn Request) -> Result<Answer, Error> {
        check_runtime()?;
        let Ok(key) = self.keys.key_by(&mut |out| request.write_id(out)) else {
            // The get reports an invalid id.
            return self.get(request, None, false).await;
        };
        let get = Get { core: self, key: &key, called: self.timestamp_of_call(), began: Stopwatch::start() };
        let mut read_through = Some(|load| get.read_through(request.loader(&key), load, None));
        let refreshed = async {
            let result = loop {
                let result = match get.join_or_lead(&self.refreshing) {
                    Role::Leader(leader) => {
                        let load = leader.load().clone();
                        let _waiting = load.wait()?;
                        let Some(mut read_through) = read_through.take() else { break FlightResult::lost(&key) };
                        let work = read_through(load).refreshed();
                        leader.start(self.longest_flight(), work).result_for(get.called).await
                    }
                    Role::Follower(flight) => get.follow(&flight, &self.refreshing).await?,
                };
                if let Some(result) = result {
                    break result;
                }
            };
            get.loaded(result, Duration::ZERO)
        };
        let span = spans::get(self.shape, &key);
        let answered = refreshed.instrument(span.clone()).await;
        record_outcome(&span, &answered);
        answered
    }
}

impl ReadThrough {
    async fn refreshed(self) -> FlightResult {
        let (core, key) = (self.core.clone(), self.key.clone());
        let result = self.load_over_entry().boxed().await;
        if result.record.is_err() {
            return result;
        }
        // The entry may be older than what is returned here: it was not replaced, or it is unknown whether it was.
        let invalidated = match result.is_stored {
            true => core.invalidate_other_versions(&key).await,
            false => core.invalidate(key).await,
        };
        match invalidated {
            Ok(_was_there) => result,
            Err(error) => FlightResult { record: Err(error), ..result },
        }
    }

    async fn load_over_entry(self) -> FlightResult {
        let (core, key) = (self.core.clone(), self.key.clone());
        if !core.is_enabled() {
            return self.around_cache(Bypass::Disabled).await;
        }
        let deadline = Instant::now() + core.policy.wait_timeout;
        let mut pauses = Backoff::new(core.policy.wait_poll / 8, core.policy.wait_poll);
        loop {
            let mut lease = Lease::new(&core, &key);
            let acquired = match lease.acquire(|_| false).await {
                Ok(acquired) => acquired,
                Err(error) => {
                    let why = Bypass::because_of(&error);
                    return self.without_cache(error, why).await;
                }
            };
            if acquired.granted {
                let mark = if has_stale(&core, &acquired) { Mark::Failed } else { Mark::Unstored };
                let granted = acquired.found.and_then(|found| Granted::of(&core, &found));
                let load_began = Timestamp::of_step();
                let result = self.load_and_fill(&lease, granted).await;
                match &result.record {
                    Ok(_) => {
                        core.backend.written(&key);
                        lease.end();
                    }
                    Err(_) => lease.mark(mark).await,
                }
                // Not by the fill: calls that came after the load began get another.
                return FlightResult { justified: load_began, ..result };
            }
            if Instant::now() >= deadline {
                return self.around_cache(Bypass::SlowLoad).await;
            }
            if let Some(orphan) = core.orphans.take(&key) {
                abandon(&core, &key, &orphan).await;
                continue;
            }
            tokio::time::sleep(pauses.next()).await;
        }
    }
}
