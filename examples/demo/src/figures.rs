//! The demo's counters: the cache's own statistics, the primary's reads, and the latency of reads by outcome.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cache_aside::{Outcome, TrackerState};
use serde::Serialize;

use crate::caches::Caches;
use crate::primary::Primary;

/// The name of every [`Outcome`] in answers.
const OUTCOMES: [&str; 9] =
    ["hit", "not_found_hit", "near_hit", "loaded", "coalesced", "waited", "bypassed", "stale", "stale_revalidating"];

pub(crate) fn name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Hit => "hit",
        Outcome::NotFoundHit => "not_found_hit",
        Outcome::NearHit => "near_hit",
        Outcome::Loaded => "loaded",
        Outcome::Coalesced => "coalesced",
        Outcome::Waited => "waited",
        Outcome::Bypassed => "bypassed",
        Outcome::Stale { revalidating: false, .. } => "stale",
        Outcome::Stale { revalidating: true, .. } => "stale_revalidating",
        _ => "other",
    }
}

fn tracker_name(tracker: TrackerState) -> &'static str {
    match tracker {
        TrackerState::Unused => "unused",
        TrackerState::Connecting => "connecting",
        TrackerState::Live => "live",
        TrackerState::Unsupported => "unsupported",
        _ => "other",
    }
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The number of reads with each outcome, and how long they took.
#[derive(Default)]
pub(crate) struct Latencies {
    sums: [Sum; OUTCOMES.len()],
}

#[derive(Default)]
struct Sum {
    count: AtomicU64,
    /// A near hit may take less than a microsecond.
    nanos: AtomicU64,
}

impl Latencies {
    pub(crate) fn add(&self, outcome: Outcome, took: Duration) {
        for (sum, known) in self.sums.iter().zip(OUTCOMES) {
            if known == name(outcome) {
                sum.count.fetch_add(1, Ordering::Relaxed);
                sum.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn reset(&self) {
        for sum in &self.sums {
            sum.count.store(0, Ordering::Relaxed);
            sum.nanos.store(0, Ordering::Relaxed);
        }
    }

    fn totals(&self) -> Vec<Total> {
        let sums = self.sums.iter().zip(OUTCOMES);
        sums.map(|(sum, outcome)| {
            let total_ms = millis(Duration::from_nanos(sum.nanos.load(Ordering::Relaxed)));
            Total { outcome, count: sum.count.load(Ordering::Relaxed), total_ms }
        })
        .collect()
    }
}

/// All reads with one outcome.
#[derive(Debug, Serialize)]
pub(crate) struct Total {
    pub(crate) outcome: &'static str,
    pub(crate) count: u64,
    pub(crate) total_ms: f64,
}

/// The statistics in answers. All count from the start or the last reset.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) hits: u64,
    pub(crate) not_found_hits: u64,
    pub(crate) misses: u64,
    pub(crate) loads: u64,
    pub(crate) load_errors: u64,
    pub(crate) stampedes_suppressed: u64,
    pub(crate) fenced_fills: u64,
    pub(crate) bypasses: u64,
    pub(crate) stale_served: u64,
    pub(crate) stale_revalidating: u64,
    pub(crate) decode_errors: u64,
    pub(crate) updates: u64,
    pub(crate) invalidations: u64,
    pub(crate) near_hits: u64,
    pub(crate) near_invalidations: u64,
    pub(crate) near_flushes: u64,
    pub(crate) near_refused_inserts: u64,
    pub(crate) hit_rate_pct: f64,
    pub(crate) primary_reads_total: u64,
    /// The mean duration of a read of the primary; before the first read, the configured latency.
    pub(crate) primary_read_latency_ms: f64,
    /// The configured artificial latency.
    pub(crate) read_latency_ms: f64,
    /// Whether reads of the primary fail.
    pub(crate) primary_fails: bool,
    pub(crate) outcomes: Vec<Total>,
    /// Failed invalidations that are still to be applied.
    pub(crate) pending: usize,
    /// Whether the cache is switched off.
    pub(crate) outage: bool,
    /// Whether the near cache is switched on.
    pub(crate) near_cache: bool,
    /// The state of the tracker, which receives the server's messages about changes.
    pub(crate) tracker: &'static str,
    /// The address of the cache.
    pub(crate) cache: String,
}

impl Figures {
    pub(crate) fn new(caches: &Caches, primary: &Primary, latencies: &Latencies, outage: bool, cache: &str) -> Self {
        let stats = caches.stats();
        Self {
            hits: stats.hits,
            not_found_hits: stats.not_found_hits,
            misses: stats.misses,
            loads: stats.loads,
            load_errors: stats.load_errors,
            stampedes_suppressed: stats.stampedes_suppressed,
            fenced_fills: stats.fenced_fills,
            bypasses: stats.bypasses,
            stale_served: stats.stale_served,
            stale_revalidating: stats.stale_revalidating,
            decode_errors: stats.decode_errors,
            updates: stats.updates,
            invalidations: stats.invalidations,
            near_hits: stats.near_hits,
            near_invalidations: stats.near_invalidations,
            near_flushes: stats.near_flushes,
            near_refused_inserts: stats.near_refused_inserts,
            hit_rate_pct: stats.hit_rate_pct(),
            primary_reads_total: primary.reads(),
            primary_read_latency_ms: millis(primary.read_latency()),
            read_latency_ms: millis(primary.latency()),
            primary_fails: primary.fails(),
            outcomes: latencies.totals(),
            pending: caches.chosen().pending().keys.len(),
            outage,
            near_cache: caches.uses_near(),
            tracker: tracker_name(stats.tracker),
            cache: cache.to_owned(),
        }
    }
}
