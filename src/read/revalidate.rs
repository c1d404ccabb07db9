//! Stale while revalidating: a get that has read a stale record, and may serve it while it is loaded anew.

use std::sync::Arc;

use tokio::time::timeout;

use super::get::{Answer, Get, Miss, coalesced};
use super::nested::Load;
use super::read_through::ReadThrough;
use super::single_flight::{FlightResult, Need, Role};
use crate::backend::check_runtime;
use crate::cache::Bypass;
use crate::error::Error;

impl Get<'_> {
    /// Takes part in the flight of a stale record.
    pub(super) fn join_stale(&self) -> Role {
        self.core.flights.join_or_lead(self.key, Need::Load, || self.begin_load())
    }

    /// Starts or follows the flight of a stale record, and serves the record unless the flight ends within `soft_timeout`.
    pub(super) async fn revalidate(
        self,
        role: Role,
        stale: Answer,
        epoch: Option<u64>,
        read_through: impl FnOnce(Arc<Load>) -> ReadThrough,
    ) -> Result<Answer, Error> {
        check_runtime()?;
        let Self { core, key, called, .. } = self;
        let cache_latency = stale.cache_latency;
        let (flight, read_through) = match role {
            Role::Leader(leader) => {
                #[cfg(feature = "__proof")]
                stale.record.iter().for_each(|record| drop(leader.load().seen_by_leader.set(record.clone())));
                let read_through = read_through(leader.load().clone());
                (leader.start(core.longest_flight(), read_through.through_cache()), None)
            }
            Role::Follower(flight) => (flight, Some(read_through)),
        };
        let soft_timeout = core.policy.soft_timeout;
        if !soft_timeout.is_zero()
            && let Ok(Some(result)) = timeout(soft_timeout, flight.result_for(called)).await
            && result.record.is_ok()
        {
            return self.loaded(if read_through.is_none() { result } else { coalesced(result) }, cache_latency);
        }
        // The read was sent after this get began, so its record is as good as a hit. But this process may know better by now.
        if !core.backend.is_pending(key) && core.backend.key_epoch(key) == epoch {
            core.metrics.got(stale.outcome, true, self.began);
            return Ok(stale);
        }
        let Some(read_through) = read_through else {
            flight.load().need();
            let _waiting = flight.load().wait()?;
            let result = flight.result_for(called).await;
            return self.loaded(result.unwrap_or_else(|| FlightResult::lost(key)), cache_latency);
        };
        let miss = match core.backend.is_pending(key) {
            true => Miss::Unusable(Box::new(core.backend.pending_error(key)), Bypass::Pending),
            false => Miss::NotCached,
        };
        self.load(self.join(miss), cache_latency, read_through).await
    }
}
