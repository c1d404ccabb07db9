//! The shop's two caches, without a near cache and with one, and the switch between them.
//!
//! A real service has one cache, since settings are fixed when a cache is built. These two share their entries, because
//! both use one backend, and a write through either drops the record from the near cache. The near cache goes on
//! receiving messages while the switch is off, so its records are right when it is switched on again.

use std::sync::atomic::{AtomicBool, Ordering};

use cache_aside::{LoadingCache, Stats, TrackerState};

use crate::primary::Product;

pub(crate) struct Caches {
    plain: LoadingCache<Product>,
    near: LoadingCache<Product>,
    uses_near: AtomicBool,
}

impl Caches {
    pub(crate) fn new(plain: LoadingCache<Product>, near: LoadingCache<Product>) -> Self {
        Self { plain, near, uses_near: AtomicBool::new(false) }
    }

    pub(crate) fn chosen(&self) -> &LoadingCache<Product> {
        if self.uses_near() { &self.near } else { &self.plain }
    }

    pub(crate) fn uses_near(&self) -> bool {
        self.uses_near.load(Ordering::Relaxed)
    }

    /// Returns whether it was switched. A near cache can't be switched on where it has no use.
    pub(crate) fn use_near(&self, on: bool) -> bool {
        let is_possible = !on || self.near.stats().tracker != TrackerState::Unused;
        if is_possible {
            self.uses_near.store(on, Ordering::Relaxed);
        }
        is_possible
    }

    /// The statistics of both together.
    pub(crate) fn stats(&self) -> Stats {
        let (plain, mut both) = (self.plain.stats(), self.near.stats());
        both.hits += plain.hits;
        both.not_found_hits += plain.not_found_hits;
        both.misses += plain.misses;
        both.loads += plain.loads;
        both.load_errors += plain.load_errors;
        both.stampedes_suppressed += plain.stampedes_suppressed;
        both.fenced_fills += plain.fenced_fills;
        both.bypasses += plain.bypasses;
        both.stale_served += plain.stale_served;
        both.stale_revalidating += plain.stale_revalidating;
        both.refreshes_ahead += plain.refreshes_ahead;
        both.decode_errors += plain.decode_errors;
        both.updates += plain.updates;
        both.invalidations += plain.invalidations;
        both
    }

    pub(crate) fn reset_stats(&self) {
        self.plain.reset_stats();
        self.near.reset_stats();
    }
}
