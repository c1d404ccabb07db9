//! The default of every setting.
//!
//! A setting that is a `Duration` takes 1 ms to 36,500 days, unless its own text says otherwise.

use std::time::Duration;

use crate::cache::{OnOutage, UpdateTtl};
use crate::error::Error;
use crate::near::Untracked;

/// The lifetime of a record in the cache: 5 minutes.
pub const TTL: Duration = Duration::from_secs(5 * 60);

/// How long a cache remembers that a record doesn't exist: 5 seconds, or half of a `ttl` that is not longer.
pub const NOT_FOUND_TTL: Duration = Duration::from_secs(5);

/// The largest fraction by which the lifetime of an entry is shortened at random: 10 %.
pub const JITTER: f64 = 0.1;

/// How long a failed load is not retried while a stale record is served in its place, or after a failed refresh ahead:
/// 1 second.
pub const STALE_RETRY: Duration = Duration::from_secs(1);

/// How long a get waits for a load before it serves a stale record in its place: zero, not at all.
pub const SOFT_TIMEOUT: Duration = Duration::ZERO;

/// The beta of the attribute `refresh_ahead` without a value: 1.0.
pub const REFRESH_AHEAD: f64 = 1.0;

/// The length of a lease: 5 seconds. It is renewed each third of that while the loader runs.
pub const LOCK_TTL: Duration = Duration::from_secs(5);

/// How long a loader may run: 30 seconds.
pub const LOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest pause between two polls for the result of another process' load: 20 milliseconds.
pub const WAIT_POLL: Duration = Duration::from_millis(20);

/// How long a get waits for another process' load: 30 seconds, as long as a loader may run.
pub const WAIT_TIMEOUT: Duration = LOAD_TIMEOUT;

/// How a get responds to a cache that is out of reach: it loads around the cache.
pub const ON_OUTAGE: OnOutage = OnOutage::Load;

/// How many loads may go around a cache that is out of reach at the same time: 256.
pub const MAX_BYPASS_LOADS: usize = 256;

/// How long an update retries when others change the entry at the same time: 1 second.
pub const UPDATE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the first of several gets waits for others whose records a batch loader can load in the same call: 1 millisecond.
pub const BATCH_WINDOW: Duration = Duration::from_millis(1);

/// The most records that single gets load in one call of a batch loader: 1,024.
pub const BATCH_AT_MOST: usize = 1_024;

/// Whether updates extend the lifetime of the entry: they keep it.
pub const UPDATE_TTL: UpdateTtl = UpdateTtl::Keep;

/// Whether a cache is used at all: `true`.
pub const ENABLED: bool = true;

/// The size of the largest record that is stored, in bytes of its field names and values: 1 MiB.
pub const MAX_ENTRY_BYTES: usize = 1 << 20;

/// The memory that the records of a near cache may take: 64 MiB.
pub const NEAR_MAX_BYTES: usize = 64 << 20;

/// How long a near cache keeps an entry, at most: 30 seconds.
pub const NEAR_MAX_AGE: Duration = Duration::from_secs(30);

/// The behaviour of a near cache on a server that can't send invalidation messages: it is off.
pub const NEAR_UNTRACKED: Untracked = Untracked::Off;

/// How often a heartbeat is sent over the connection that brings near caches their invalidation messages: each second.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// How long the answer to a heartbeat may take: 500 milliseconds.
pub const HEARTBEAT_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a server may take to answer a step, from when its command goes out: 250 milliseconds.
pub const OPERATION_TIMEOUT: Duration = Duration::from_millis(250);

/// The number of steps in a row without an answer that opens the circuit breaker of a server: 5.
pub const BREAKER_THRESHOLD: u32 = 5;

/// How long an open circuit breaker waits before it asks the server again, at most: 500 milliseconds.
pub const BREAKER_PAUSE: Duration = Duration::from_millis(500);

/// How many failed invalidations and updates a backend remembers by their key: 10,000.
pub const MAX_PENDING_INVALIDATIONS: usize = 10_000;

/// How long [`Backend::close`](crate::Backend::close) waits for pending invalidations: 5 seconds.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The name of a Redis backend's connections in `CLIENT LIST`: `cache-aside`.
pub const CLIENT_NAME: &str = "cache-aside";

/// The time limit for connecting to a backend: 2 seconds.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The most connections for updates that a Redis backend keeps to each server, in addition to the one that all other steps
/// share: 8.
pub const UPDATE_CONNECTIONS: usize = 8;

/// How long the keys of writes are remembered, for servers that are replaced: 10 seconds.
pub const REPLAY_WINDOW: Duration = Duration::from_secs(10);

/// The most entries that a `memory://` backend keeps: 100,000.
pub const MAX_ENTRIES: usize = 100_000;

/// Redis counts lifetimes in whole milliseconds, and overflows when it adds one that is too long to the time of day.
pub(crate) const SHORTEST: Duration = Duration::from_millis(1);
pub(crate) const LONGEST: Duration = Duration::from_secs(36_500 * 24 * 60 * 60);

pub(crate) fn check_duration(setting: &str, duration: Duration) -> Result<(), Error> {
    if (SHORTEST..=LONGEST).contains(&duration) {
        return Ok(());
    }
    Err(Error::config(format!("{setting} is {duration:?}: it must be between 1 ms and 36,500 days")))
}
