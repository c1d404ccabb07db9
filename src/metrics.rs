//! The metrics of caches, near caches and backends, with their names, labels and help texts. `series` sends them to the recorder,
//! `spans` has the spans of calls and loads.
//!
//! An event is counted in one place, both for [`Stats`] and for the recorder of the `metrics` crate. No label has an id: there
//! would be a series for each record.

mod series;
pub(crate) mod spans;

use std::time::Duration;

use parking_lot::Mutex;
use tracing::{Level, Span};

use self::series::{Kind, Name};
pub(crate) use self::series::{Series, Stopwatch};
use crate::cache::{Bypass, Outcome};
use crate::counters::{Counter, Counters, ShardedCounter};
use crate::error::Error;
use crate::record::TypeNames;
use crate::stats::Stats;

const OPERATIONS: Name = ("cache_aside_operations_total", "gets, updates and invalidations by outcome");
const GET_SECONDS: Name = ("cache_aside_get_seconds", "duration of gets, including loads");
const LOAD_SECONDS: Name = ("cache_aside_load_seconds", "duration of loads; the call of a batch loader is one load");
const LOAD_RECORDS: Name = ("cache_aside_load_records", "number of ids in a call of a batch loader");
const LOCK_WAIT_SECONDS: Name = ("cache_aside_lock_wait_seconds", "time spent waiting for another process' load");
const BYPASSES: Name = ("cache_aside_bypasses_total", "gets that bypassed the cache");
const STALE_SERVED: Name = (
    "cache_aside_stale_served_total",
    "gets answered with a record past its TTL, because its load failed or is under way",
);
const REFRESHES_AHEAD: Name =
    ("cache_aside_refreshes_ahead_total", "hits that started to reload their record before it expired");
const FENCED_FILLS: Name = (
    "cache_aside_fenced_fills_total",
    "loads that were not stored, because their lease had expired or an invalidation had revoked it",
);
const LEASES_LOST: Name = ("cache_aside_leases_lost_total", "leases that expired or were revoked during their load");
const DECODE_ERRORS: Name = ("cache_aside_decode_errors_total", "unreadable entries, which count as misses");
const ENCODE_ERRORS: Name = (
    "cache_aside_encode_errors_total",
    "records and updates that were not stored, because a value can not be encoded or would not come back from its text",
);
const INVALID_IDS: Name =
    ("cache_aside_invalid_ids_total", "calls with an id that can not be part of a key, whose record is never cached");
const OTHER_IDS: Name = (
    "cache_aside_other_ids_total",
    "records that were not stored, because a loader returned them with another id than it was asked for",
);
pub(crate) const BREAKER_OPEN: Name =
    ("cache_aside_breaker_open", "servers of the backend whose circuit breaker is open, because they do not answer");
const STEP_FAILURES: Name = ("cache_aside_step_failures_total", "failed calls to the backend, unanswered or refused");
const PENDING: Name =
    ("cache_aside_pending_invalidations", "failed invalidations and updates that are still to be applied");
const UPDATE_CONNECTIONS: Name = ("cache_aside_update_connections", "connections for updates, in use or idle");
const NEAR_INVALIDATIONS: Name =
    ("cache_aside_near_invalidations_total", "invalidation messages from the server to a near cache");
const NEAR_FLUSHES: Name = (
    "cache_aside_near_flushes_total",
    "times a near cache was emptied, because invalidation messages may have been missed or the cache was cleared",
);
const NEAR_REFUSED_INSERTS: Name = (
    "cache_aside_near_refused_inserts_total",
    "entries that a near cache did not keep, because they may have changed while they were read",
);
pub(crate) const TRACKER_LIVE: Name =
    ("cache_aside_tracker_live", "above 0 while the backend's servers send invalidation messages to near caches");

/// The outcomes of a get, by their names.
const OUTCOMES: [&str; COUNT_OF_OUTCOMES] = [
    Outcome::Hit.name(),
    Outcome::NotFoundHit.name(),
    Outcome::NearHit.name(),
    Outcome::Loaded.name(),
    Outcome::Coalesced.name(),
    Outcome::Waited.name(),
    Outcome::Bypassed.name(),
    Outcome::Stale { age: Duration::ZERO, revalidating: false }.name(),
    Outcome::Stale { age: Duration::ZERO, revalidating: true }.name(),
    FAILED,
];
const FAILED: &str = "error";
/// A number, and not `OUTCOMES.len()` where a type needs it: in optimised builds the compiler would have to know the types that
/// depend on it first.
const COUNT_OF_OUTCOMES: usize = 10;

impl Outcome {
    /// Its name in metrics and spans.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::NotFoundHit => "not_found_hit",
            Self::NearHit => "near_hit",
            Self::Loaded => "loaded",
            Self::Coalesced => "coalesced",
            Self::Waited => "waited",
            Self::Bypassed => "bypassed",
            Self::Stale { revalidating: false, .. } => "stale",
            Self::Stale { revalidating: true, .. } => "stale_revalidating",
        }
    }
}

impl Bypass {
    const ALL: [Self; 5] = [Self::Disabled, Self::Outage, Self::Pending, Self::InvalidId, Self::SlowLoad];

    /// Its name in metrics and spans.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Outage => "outage",
            Self::Pending => "pending",
            Self::InvalidId => "invalid_id",
            Self::SlowLoad => "slow_load",
        }
    }
}

/// The metrics of one cache and its clones.
pub(crate) struct CacheMetrics {
    pub(crate) counts: Counters,
    /// By outcome: the number of gets, and their duration.
    gets: [(&'static str, Series, Series); COUNT_OF_OUTCOMES],
    /// By outcome: applied, nothing to do, failed.
    updates: [Series; 3],
    invalidations: [Series; 3],
    loaded: Series,
    load_failed: Series,
    load_records: Series,
    pub(crate) lock_wait: Series,
    /// By reason.
    bypasses: [Series; 5],
    stale_revalidating: Series,
    stale_after_failure: Series,
    pub(crate) leases_lost: Series,
}

impl CacheMetrics {
    pub(crate) fn new(namespace: &str, entity: &str) -> Self {
        let own = of_entity(namespace, entity);
        let with = |more: &[(&'static str, &'static str)]| [&own, more].concat();
        let counter = |name| Counter::with(Series::new(Kind::Counter, name, &own));
        let get = |outcome| {
            let count = Series::new(Kind::Counter, OPERATIONS, &with(&[("operation", "get"), ("outcome", outcome)]));
            (outcome, count, Series::new(Kind::Seconds, GET_SECONDS, &with(&[("outcome", outcome)])))
        };
        let write = |operation| {
            let labels = |outcome| with(&[("operation", operation), ("outcome", outcome)]);
            ["applied", "nothing", "failed"].map(|outcome| Series::new(Kind::Counter, OPERATIONS, &labels(outcome)))
        };
        Self {
            counts: Counters {
                fenced_fills: counter(FENCED_FILLS),
                refreshes_ahead: counter(REFRESHES_AHEAD),
                decode_errors: counter(DECODE_ERRORS),
                encode_errors: counter(ENCODE_ERRORS),
                invalid_ids: counter(INVALID_IDS),
                other_ids: counter(OTHER_IDS),
                ..Counters::default()
            },
            gets: OUTCOMES.map(get),
            updates: write("update"),
            invalidations: write("invalidate"),
            loaded: Series::new(Kind::Seconds, LOAD_SECONDS, &with(&[("result", "ok")])),
            load_failed: Series::new(Kind::Seconds, LOAD_SECONDS, &with(&[("result", "error")])),
            load_records: Series::new(Kind::Number, LOAD_RECORDS, &own),
            lock_wait: Series::new(Kind::Seconds, LOCK_WAIT_SECONDS, &own),
            bypasses: Bypass::ALL.map(|why| Series::new(Kind::Counter, BYPASSES, &with(&[("reason", why.name())]))),
            stale_revalidating: Series::new(Kind::Counter, STALE_SERVED, &with(&[("reason", "revalidating")])),
            stale_after_failure: Series::new(Kind::Counter, STALE_SERVED, &with(&[("reason", "load_failed")])),
            leases_lost: Series::new(Kind::Counter, LEASES_LOST, &own),
        }
    }

    /// Counts a get; `ok`: whether it succeeded.
    #[inline]
    pub(crate) fn got(&self, outcome: Outcome, ok: bool, stopwatch: Stopwatch) {
        let (counts, name) = (&self.counts, if ok { outcome.name() } else { FAILED });
        if cfg!(feature = "metrics")
            && let Some((_, count, seconds)) = self.gets.iter().find(|get| get.0 == name)
        {
            count.count(1);
            seconds.record(stopwatch);
        }
        match outcome {
            Outcome::Hit => counts.hits.add(),
            Outcome::NotFoundHit => counts.not_found_hits.add(),
            // `NearMetrics` counts these.
            Outcome::NearHit => {}
            Outcome::Loaded => counts.misses.add(),
            Outcome::Coalesced | Outcome::Waited => {
                counts.misses.add();
                counts.stampedes_suppressed.add();
            }
            Outcome::Bypassed => counts.bypasses.add(),
            Outcome::Stale { revalidating, .. } => {
                counts.misses.add();
                counts.stale_served.add();
                if revalidating {
                    counts.stale_revalidating.add();
                    self.stale_revalidating.count(1);
                } else {
                    self.stale_after_failure.count(1);
                }
            }
        }
    }

    /// A get went around the cache.
    pub(crate) fn bypassed(&self, why: Bypass) {
        self.bypasses[why as usize].count(1);
    }

    /// `updated`: whether a record was changed.
    pub(crate) fn updated(&self, updated: &Result<bool, Error>) {
        count_write(&self.updates, updated);
        if let Ok(true) = updated {
            self.counts.updates.add();
        }
    }

    /// `invalidated`: whether there was an entry.
    pub(crate) fn invalidated(&self, invalidated: &Result<bool, Error>) {
        count_write(&self.invalidations, invalidated);
        if invalidated.is_ok() {
            self.counts.invalidations.add();
        }
    }
}

/// A load that is counted: of one record, or a call of a batch loader.
pub(crate) struct Counted<'a> {
    metrics: Option<&'a CacheMetrics>,
    began: Stopwatch,
    /// Whether to count it as failed if it is dropped: a call that nobody waits for any more has taken too long.
    fails_if_dropped: bool,
}

impl<'a> Counted<'a> {
    /// `is_batched`: whether the load is a part of a call, which is counted in its place.
    pub(crate) fn begin(metrics: &'a CacheMetrics, is_batched: bool) -> Self {
        if !is_batched {
            metrics.counts.loads.add();
        }
        Self { metrics: Some(metrics).filter(|_| !is_batched), began: Stopwatch::start(), fails_if_dropped: false }
    }

    /// The call of a batch loader, for so many ids.
    pub(crate) fn begin_batch(metrics: &'a CacheMetrics, ids: usize) -> Self {
        metrics.load_records.record_number(ids);
        let mut counted = Self::begin(metrics, false);
        counted.fails_if_dropped = true;
        counted
    }

    /// Also marks the span of the load as failed, if it has.
    pub(crate) fn end<R, E: std::fmt::Display>(mut self, span: &Span, loaded: &Result<R, E>) {
        if let Err(error) = loaded {
            // This is how `tracing-opentelemetry` learns that a span has failed.
            span.record("otel.status_code", "ERROR");
            // Errors name keys, which contain ids.
            if tracing::enabled!(Level::DEBUG) {
                span.record("error", tracing::field::display(error));
            }
        }
        self.count(loaded.is_ok());
    }

    fn count(&mut self, ok: bool) {
        let Some(metrics) = self.metrics.take() else { return };
        if ok {
            metrics.loaded.record(self.began);
        } else {
            metrics.load_failed.record(self.began);
            metrics.counts.load_errors.add();
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if self.fails_if_dropped {
            self.count(false);
        }
    }
}

fn count_write([applied, nothing, failed]: &[Series; 3], done: &Result<bool, Error>) {
    let outcome = match done {
        Ok(true) => applied,
        Ok(false) => nothing,
        Err(_) => failed,
    };
    outcome.count(1);
}

/// The metrics of one near cache.
pub(crate) struct NearMetrics {
    pub(crate) hits: ShardedCounter,
    pub(crate) not_found_hits: ShardedCounter,
    pub(crate) invalidations: Counter,
    pub(crate) flushes: Counter,
    pub(crate) refused_inserts: Counter,
}

impl NearMetrics {
    pub(crate) fn new(namespace: &str, entity: &str) -> Self {
        let counter = |name| {
            let series = Series::new(Kind::Counter, name, &of_entity(namespace, entity));
            // Creates the series: these events are rare, and a missing series looks like a mistake in a dashboard.
            series.count(0);
            Counter::with(series)
        };
        Self {
            hits: ShardedCounter::default(),
            not_found_hits: ShardedCounter::default(),
            invalidations: counter(NEAR_INVALIDATIONS),
            flushes: counter(NEAR_FLUSHES),
            refused_inserts: counter(NEAR_REFUSED_INSERTS),
        }
    }

    pub(crate) fn add_to(&self, stats: &mut Stats) {
        let (hits, not_found_hits) = (self.hits.get(), self.not_found_hits.get());
        stats.hits += hits;
        stats.not_found_hits += not_found_hits;
        stats.near_hits = hits + not_found_hits;
        stats.near_invalidations = self.invalidations.get();
        stats.near_flushes = self.flushes.get();
        stats.near_refused_inserts = self.refused_inserts.get();
    }

    pub(crate) fn reset(&self) {
        self.hits.reset();
        self.not_found_hits.reset();
        for counter in [&self.invalidations, &self.flushes, &self.refused_inserts] {
            counter.reset();
        }
    }
}

/// The metrics of one backend and its clones. Several backends may share a gauge, so each adds its own part, and takes it away
/// when it is dropped.
pub(crate) struct BackendMetrics {
    unanswered: Series,
    refused: Series,
    connections_in_use: Series,
    connections_idle: Series,
    /// This backend's part of both gauges of connections.
    connections: Mutex<(usize, usize)>,
}

impl BackendMetrics {
    /// `address` is without user and password.
    pub(crate) fn new(address: &str) -> Self {
        let failures = |kind| Series::new(Kind::Counter, STEP_FAILURES, &[("backend", address), ("kind", kind)]);
        let connections =
            |state| Series::new(Kind::Gauge, UPDATE_CONNECTIONS, &[("backend", address), ("state", state)]);
        Self {
            unanswered: failures("unanswered"),
            refused: failures("refused"),
            connections_in_use: connections("in_use"),
            connections_idle: connections("idle"),
            connections: Mutex::default(),
        }
    }

    pub(crate) fn step_failed(&self, answered: bool) {
        if answered { self.refused.count(1) } else { self.unanswered.count(1) }
    }

    pub(crate) fn update_connections(&self, in_use_and_idle: impl FnOnce() -> (usize, usize)) {
        if !cfg!(feature = "metrics") {
            return;
        }
        let (in_use, idle) = in_use_and_idle();
        let before = std::mem::replace(&mut *self.connections.lock(), (in_use, idle));
        self.connections_in_use.add(difference(in_use, before.0));
        self.connections_idle.add(difference(idle, before.1));
    }
}

impl Drop for BackendMetrics {
    fn drop(&mut self) {
        self.update_connections(|| (0, 0));
    }
}

/// A gauge of a backend, which is 0 until something is added. `address` is without user and password.
pub(crate) fn gauge(name: Name, address: &str) -> Series {
    let gauge = Series::new(Kind::Gauge, name, &[("backend", address)]);
    gauge.add(0.0);
    gauge
}

/// Counts pending invalidations of keys with this prefix.
pub(crate) fn pending(prefix: &str, removed: usize, added: usize) {
    let TypeNames { namespace, entity, .. } = TypeNames::of(prefix);
    let entity = entity.split_once('@').map_or(entity, |(entity, _version)| entity);
    Series::new(Kind::Gauge, PENDING, &of_entity(namespace, entity)).add(difference(added, removed));
}

fn of_entity<'a>(namespace: &'a str, entity: &'a str) -> [(&'static str, &'a str); 2] {
    [("namespace", namespace), ("entity", entity)]
}

#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn difference(now: usize, before: usize) -> f64 {
    now as f64 - before as f64
}
