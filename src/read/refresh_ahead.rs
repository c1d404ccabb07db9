//! Refresh ahead: a hit on a record that is about to expire reloads it in the background, so that no get has to wait for a
//! load once it has expired.
//!
//! Owns the rule that decides when, and the set of keys that this process refreshes, with one task for each. The lease
//! ensures that only one process loads. Nobody waits for a refresh, since readers see its result in the cache only, and an
//! invalidation fences it like any load.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashSet;
use tracing::Instrument;

use super::lease::Lease;
use super::read_through::{Granted, ReadThrough};
use crate::backend::Mark;
use crate::record::{Found, Key};

/// A record that is due to be refreshed, as a hit has seen it.
#[derive(Clone, Copy)]
pub(super) struct Due {
    ttl: Duration,
}

impl Due {
    /// Decides at random whether this hit refreshes the entry.
    pub(super) fn draw(found: &Found, beta: f64) -> Option<Self> {
        let (ttl, load) = (found.ttl()?, found.entry.meta().load?);
        should_refresh(ttl, load, beta, 1.0 - rand::random::<f64>()).then_some(Self { ttl })
    }

    /// Whether this is the entry that the hit has seen. An entry with a longer TTL was filled since.
    fn is_of(self, found: &Found) -> bool {
        found.ttl().is_some_and(|ttl| ttl <= self.ttl)
    }
}

/// `XFetch`, the rule of Vattani, Chierichetti and Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015:
/// `drawn` is uniform in (0, 1], so the chance is `exp(-ttl / (load * beta))` at each hit.
fn should_refresh(ttl: Duration, load: Duration, beta: f64, drawn: f64) -> bool {
    load.as_secs_f64() * beta * -drawn.ln() >= ttl.as_secs_f64()
}

/// The keys that a cache refreshes in this process, or has just failed to refresh.
pub(crate) type Refreshes = Arc<DashSet<Key>>;

/// A key's place in the set, which is removed however its task ends.
struct Turn {
    keys: Refreshes,
    key: Key,
}

impl Turn {
    fn begin(keys: &Refreshes, key: &Key) -> Option<Self> {
        keys.insert(key.clone()).then(|| Self { keys: keys.clone(), key: key.clone() })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.keys.remove(&self.key);
    }
}

impl ReadThrough {
    /// Loads and fills in the background, unless the key is in the set already.
    pub(super) fn refresh_ahead(self, due: Due) {
        let Some(turn) = Turn::begin(&self.core.refreshes, &self.key) else {
            return;
        };
        let pause = self.core.policy.stale_retry;
        let refresh = async move {
            if !self.refresh(due).await {
                tokio::time::sleep(pause).await;
            }
            drop(turn);
        };
        tokio::spawn(refresh.in_current_span());
    }

    /// Returns `false` if the load failed, or if another process loads.
    async fn refresh(self, due: Due) -> bool {
        let (core, key) = (self.core.clone(), self.key.clone());
        let mut lease = Lease::new(&core, &key);
        // The backend has logged the error.
        let Some(acquired) = lease.acquire(|_| true).await.ok().filter(|acquired| acquired.granted) else {
            return false;
        };
        let Some(found) = acquired.found.filter(|found| due.is_of(found)) else {
            lease.give_back().await;
            return true;
        };
        core.metrics.counts.refreshes_ahead.add();
        let Err(error) = self.load_and_fill(&lease, Granted::of(&core, &found)).await.record else {
            lease.end();
            return true;
        };
        let keys = key.prefix();
        core.backend.repeats().warn(format!("refresh {keys}"), |times| {
            tracing::warn!(keys, times, "a record could not be refreshed ahead of its end");
        });
        tracing::debug!(%key, %error, "the refresh that failed");
        lease.mark(Mark::Unstored).await;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Duration = Duration::from_millis(100);

    fn share(ttl: Duration, beta: f64) -> f64 {
        const DRAWS: u32 = 100_000;
        let due = (0..DRAWS).filter(|_| should_refresh(ttl, LOAD, beta, 1.0 - rand::random::<f64>())).count();
        f64::from(u32::try_from(due).unwrap()) / f64::from(DRAWS)
    }

    #[test]
    fn the_chance_falls_off_exponentially_with_the_time_that_is_left() {
        for (loads_left, beta) in [(0.1, 1.0), (1.0, 1.0), (3.0, 1.0), (1.0, 0.5), (1.0, 4.0), (20.0, 1.0)] {
            let (share, expected) = (share(LOAD.mul_f64(loads_left), beta), (-loads_left / beta).exp());
            assert!((share - expected).abs() < 0.01, "{loads_left} loads left, beta {beta}: {share} is not {expected}");
        }
    }

    #[test]
    fn a_record_that_has_ended_is_always_due() {
        assert!(should_refresh(Duration::ZERO, LOAD, 1.0, 1.0));
        assert!(!should_refresh(Duration::from_nanos(1), LOAD, 1.0, 1.0));
        assert!(
            should_refresh(Duration::from_secs(3), LOAD, 1.0, f64::EPSILON / 2.0),
            "the smallest number that is drawn"
        );
    }
}
