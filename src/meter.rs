//! What operators see of caches and backends, through the `metrics` facade: the names, the labels, and their meaning.
//!
//! Labels name entities, never ids. Every event asks for the recorder that is installed at that moment, by keys that are
//! made once. Without the feature `metrics`, `meter/off.rs` stands in for this room, and all of it is nothing.

use std::mem::discriminant;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use metrics::{Key, Label, Level, Metadata, Unit};

use crate::cache::Outcome;

const METADATA: Metadata<'static> = Metadata::new("cache_aside", Level::INFO, Some("cache_aside"));

const OPERATIONS: &str = "cache_aside_operations_total";
const GET_SECONDS: &str = "cache_aside_get_seconds";
const LOAD_SECONDS: &str = "cache_aside_load_seconds";
const LOCK_WAIT_SECONDS: &str = "cache_aside_lock_wait_seconds";
const BYPASSES: &str = "cache_aside_bypasses_total";
const STALE_SERVED: &str = "cache_aside_stale_served_total";
const REFRESHES_AHEAD: &str = "cache_aside_refreshes_ahead_total";
const FENCED_FILLS: &str = "cache_aside_fenced_fills_total";
const LEASES_LOST: &str = "cache_aside_leases_lost_total";
const DECODE_ERRORS: &str = "cache_aside_decode_errors_total";
const BREAKER_OPEN: &str = "cache_aside_breaker_open";
const STEP_FAILURES: &str = "cache_aside_step_failures_total";
const PENDING: &str = "cache_aside_pending_invalidations";
const UPDATE_CONNECTIONS: &str = "cache_aside_update_connections";
const NEAR_INVALIDATIONS: &str = "cache_aside_near_invalidations_total";
const NEAR_FLUSHES: &str = "cache_aside_near_flushes_total";
const NEAR_REFUSED_INSERTS: &str = "cache_aside_near_refused_inserts_total";
const TRACKER_LIVE: &str = "cache_aside_tracker_live";

/// When something that is timed began.
#[derive(Clone, Copy)]
pub(crate) struct Began(Instant);

impl Began {
    pub(crate) fn now() -> Self {
        Self(Instant::now())
    }

    fn seconds(self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

/// A write, as the label `operation` names it.
#[derive(Clone, Copy)]
pub(crate) enum Write {
    Update,
    Invalidate,
}

/// The meter of one cache and its clones.
pub(crate) struct CacheMeter {
    gets: Vec<Get>,
    /// Of updates and invalidations: applied, nothing to do, failed.
    writes: [[Key; 3]; 2],
    loaded: Key,
    load_failed: Key,
    lock_wait: Key,
    bypasses: Key,
    stale_served: Key,
    refreshes_ahead: Key,
    fenced_fills: Key,
    leases_lost: Key,
    decode_errors: Key,
}

/// All gets with one outcome; those without one failed.
struct Get {
    outcome: Option<Outcome>,
    count: Key,
    seconds: Key,
}

impl CacheMeter {
    pub(crate) fn new(namespace: &str, entity: &'static str) -> Self {
        describe();
        let labels = |more: &[(&'static str, &'static str)]| {
            let more = more.iter().map(|(name, value)| Label::from_static_parts(name, value));
            of_entity(namespace, entity).into_iter().chain(more).collect::<Vec<_>>()
        };
        let get = |outcome: Option<Outcome>| {
            let name = outcome.map_or("error", Outcome::name);
            Get {
                outcome,
                count: Key::from_parts(OPERATIONS, labels(&[("operation", "get"), ("outcome", name)])),
                seconds: Key::from_parts(GET_SECONDS, labels(&[("outcome", name)])),
            }
        };
        let write = |operation| {
            let by = |outcome| Key::from_parts(OPERATIONS, labels(&[("operation", operation), ("outcome", outcome)]));
            ["applied", "nothing", "failed"].map(by)
        };
        Self {
            gets: Outcome::ALL.into_iter().map(Some).chain([None]).map(get).collect(),
            writes: ["update", "invalidate"].map(write),
            loaded: Key::from_parts(LOAD_SECONDS, labels(&[("result", "ok")])),
            load_failed: Key::from_parts(LOAD_SECONDS, labels(&[("result", "error")])),
            lock_wait: Key::from_parts(LOCK_WAIT_SECONDS, labels(&[])),
            bypasses: Key::from_parts(BYPASSES, labels(&[])),
            stale_served: Key::from_parts(STALE_SERVED, labels(&[])),
            refreshes_ahead: Key::from_parts(REFRESHES_AHEAD, labels(&[])),
            fenced_fills: Key::from_parts(FENCED_FILLS, labels(&[])),
            leases_lost: Key::from_parts(LEASES_LOST, labels(&[])),
            decode_errors: Key::from_parts(DECODE_ERRORS, labels(&[])),
        }
    }

    /// `None`: the get failed.
    pub(crate) fn got(&self, outcome: Option<Outcome>, began: Began) {
        let is_same = |get: &&Get| get.outcome.as_ref().map(discriminant) == outcome.as_ref().map(discriminant);
        if let Some(get) = self.gets.iter().find(is_same) {
            count(&get.count);
            record(&get.seconds, began);
        }
        match outcome {
            Some(Outcome::Bypassed) => count(&self.bypasses),
            Some(Outcome::Stale { .. }) => count(&self.stale_served),
            _ => {}
        }
    }

    /// `done`: whether there was something to write to; `None` when the write failed.
    pub(crate) fn wrote(&self, write: Write, done: Option<bool>) {
        let [applied, nothing, failed] = &self.writes[write as usize];
        count(match done {
            Some(true) => applied,
            Some(false) => nothing,
            None => failed,
        });
    }

    pub(crate) fn loaded(&self, ok: bool, began: Began) {
        record(if ok { &self.loaded } else { &self.load_failed }, began);
    }

    pub(crate) fn waited_for_lease(&self, began: Began) {
        record(&self.lock_wait, began);
    }

    pub(crate) fn fenced_fill(&self) {
        count(&self.fenced_fills);
    }

    pub(crate) fn lease_lost(&self) {
        count(&self.leases_lost);
    }

    pub(crate) fn refresh_ahead(&self) {
        count(&self.refreshes_ahead);
    }

    pub(crate) fn decode_error(&self) {
        count(&self.decode_errors);
    }
}

/// The meter of one backend and its clones. Its gauges add up with those of others that have the same labels, and take
/// back what they have added when it is dropped.
pub(crate) struct BackendMeter {
    unanswered: Key,
    refused: Key,
    connections_in_use: Key,
    connections_idle: Key,
    /// What the gauges of connections have of this backend.
    connections: Mutex<(usize, usize)>,
}

impl BackendMeter {
    /// `address` is without user and password.
    pub(crate) fn new(address: &str) -> Self {
        describe();
        let key = |name: &'static str, label: (&'static str, &'static str)| {
            Key::from_parts(name, vec![backend(address), Label::from_static_parts(label.0, label.1)])
        };
        Self {
            unanswered: key(STEP_FAILURES, ("kind", "unanswered")),
            refused: key(STEP_FAILURES, ("kind", "refused")),
            connections_in_use: key(UPDATE_CONNECTIONS, ("state", "in_use")),
            connections_idle: key(UPDATE_CONNECTIONS, ("state", "idle")),
            connections: Mutex::default(),
        }
    }

    pub(crate) fn step_failed(&self, answered: bool) {
        count(if answered { &self.refused } else { &self.unanswered });
    }

    pub(crate) fn update_connections(&self, in_use_and_idle: impl FnOnce() -> (usize, usize)) {
        let (in_use, idle) = in_use_and_idle();
        let mut shown = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *shown, (in_use, idle));
        add(&self.connections_in_use, difference(in_use, before.0));
        add(&self.connections_idle, difference(idle, before.1));
    }
}

impl Drop for BackendMeter {
    fn drop(&mut self) {
        self.update_connections(|| (0, 0));
    }
}

/// The meter of one breaker.
pub(crate) struct BreakerMeter {
    open: Key,
}

impl BreakerMeter {
    /// `address` is without user and password.
    pub(crate) fn new(address: &str) -> Self {
        let meter = Self { open: Key::from_parts(BREAKER_OPEN, vec![backend(address)]) };
        add(&meter.open, 0.0);
        meter
    }

    pub(crate) fn opened(&self) {
        add(&self.open, 1.0);
    }

    pub(crate) fn closed(&self) {
        add(&self.open, -1.0);
    }
}

/// The meter of one near cache.
pub(crate) struct NearMeter {
    invalidations: Key,
    flushes: Key,
    refused_inserts: Key,
}

impl NearMeter {
    pub(crate) fn new(namespace: &str, entity: &'static str) -> Self {
        let key = |name| {
            let key = Key::from_parts(name, of_entity(namespace, entity).to_vec());
            // So that the series is there before anything happens, which may be never.
            metrics::with_recorder(|recorder| recorder.register_counter(&key, &METADATA).increment(0));
            key
        };
        Self {
            invalidations: key(NEAR_INVALIDATIONS),
            flushes: key(NEAR_FLUSHES),
            refused_inserts: key(NEAR_REFUSED_INSERTS),
        }
    }

    pub(crate) fn invalidation(&self) {
        count(&self.invalidations);
    }

    pub(crate) fn flush(&self) {
        count(&self.flushes);
    }

    pub(crate) fn refused_insert(&self) {
        count(&self.refused_inserts);
    }
}

/// The meter of a backend's trackers.
pub(crate) struct TrackerMeter {
    live: Key,
}

impl TrackerMeter {
    /// `address` is without user and password.
    pub(crate) fn new(address: &str) -> Self {
        let meter = Self { live: Key::from_parts(TRACKER_LIVE, vec![backend(address)]) };
        add(&meter.live, 0.0);
        meter
    }

    pub(crate) fn begun(&self) {
        add(&self.live, 1.0);
    }

    pub(crate) fn ended(&self) {
        add(&self.live, -1.0);
    }
}

/// Notes that of the keys with this prefix so many wait to be invalidated no longer, and so many more do.
pub(crate) fn pending(prefix: &str, gone: usize, come: usize) {
    let names = prefix.strip_prefix("cache:").unwrap_or(prefix).trim_end_matches(':');
    let (namespace, entity) = names.split_once(':').unwrap_or(("", names));
    let entity = entity.split_once('@').map_or(entity, |(entity, _version)| entity);
    let labels = [("namespace", namespace), ("entity", entity)].map(|(name, value)| Label::new(name, value.to_owned()));
    add(&Key::from_parts(PENDING, labels.to_vec()), difference(come, gone));
}

fn of_entity(namespace: &str, entity: &'static str) -> [Label; 2] {
    [Label::new("namespace", namespace.to_owned()), Label::from_static_parts("entity", entity)]
}

fn backend(address: &str) -> Label {
    Label::new("backend", address.to_owned())
}

#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn difference(now: usize, before: usize) -> f64 {
    now as f64 - before as f64
}

fn count(key: &Key) {
    metrics::with_recorder(|recorder| recorder.register_counter(key, &METADATA).increment(1));
}

fn record(key: &Key, began: Began) {
    metrics::with_recorder(|recorder| recorder.register_histogram(key, &METADATA).record(began.seconds()));
}

fn add(key: &Key, more: f64) {
    metrics::with_recorder(|recorder| recorder.register_gauge(key, &METADATA).increment(more));
}

/// Says what the names mean, to the recorder that is installed now.
fn describe() {
    let counters = [
        (OPERATIONS, "gets, updates and invalidations by outcome"),
        (BYPASSES, "gets that went around the cache"),
        (STALE_SERVED, "gets that a record past its TTL answered, because its load failed"),
        (REFRESHES_AHEAD, "hits that began to load their record anew before it ended"),
        (FENCED_FILLS, "loads that were not stored, because an invalidation overtook them or their lease ran out"),
        (LEASES_LOST, "leases that were found lost while their load was under way"),
        (DECODE_ERRORS, "entries that were found unreadable"),
        (NEAR_INVALIDATIONS, "messages of the server to a near cache that an entry has changed"),
        (NEAR_FLUSHES, "times that a near cache was emptied, because such messages may have been missed"),
        (
            NEAR_REFUSED_INSERTS,
            "entries that a near cache did not keep, because they may have changed while they were read",
        ),
        (STEP_FAILURES, "calls to the backend that failed, unanswered or refused"),
    ];
    let histograms = [
        (GET_SECONDS, "duration of gets by outcome"),
        (LOAD_SECONDS, "duration of loads by result"),
        (LOCK_WAIT_SECONDS, "how long another process' load was waited for"),
    ];
    let gauges = [
        (BREAKER_OPEN, "servers of the backend that do not answer and are left alone"),
        (PENDING, "failed invalidations and updates that wait to be applied"),
        (UPDATE_CONNECTIONS, "connections of updates, in use and idle"),
        (TRACKER_LIVE, "1 while the backend's servers tell near caches of changes"),
    ];
    metrics::with_recorder(|recorder| {
        for (name, text) in counters {
            recorder.describe_counter(name.into(), Some(Unit::Count), text.into());
        }
        for (name, text) in histograms {
            recorder.describe_histogram(name.into(), Some(Unit::Seconds), text.into());
        }
        for (name, text) in gauges {
            recorder.describe_gauge(name.into(), Some(Unit::Count), text.into());
        }
    });
}
