//! The default of every setting, and the range that durations must lie in.

use std::time::Duration;

use crate::cache::{OnOutage, UpdateTtl};
use crate::error::Error;
use crate::near::Untracked;

/// Lifetime of a record in the cache.
pub const TTL: Duration = Duration::from_secs(5 * 60);

/// How long it is remembered that a record doesn't exist; half of the `ttl`, where that is not longer.
pub const NOT_FOUND_TTL: Duration = Duration::from_secs(5);

/// The part by which a fill's lifetime is shortened at random, at most.
pub const JITTER: f64 = 0.1;

/// How long a load that failed is not tried again, where a stale record is served instead, or the load was a refresh
/// ahead.
pub const STALE_RETRY: Duration = Duration::from_secs(1);

/// Beta of the attribute `refresh_ahead` without a value.
pub const REFRESH_AHEAD: f64 = 1.0;

/// Length of a lease. It is renewed at a third of it for as long as the loader runs.
pub const LOCK_TTL: Duration = Duration::from_secs(5);

/// How long a loader may run.
pub const LOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest pause between two looks at another process' load.
pub const WAIT_POLL: Duration = Duration::from_millis(20);

/// How long another process' load is waited for.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a get does when the cache is out of reach.
pub const ON_OUTAGE: OnOutage = OnOutage::Load;

/// Loads around a cache that is out of reach, at the same time.
pub const MAX_BYPASS_LOADS: usize = 256;

/// How long an update tries to get past the updates of others.
pub const UPDATE_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether updates move the entry's deadline.
pub const UPDATE_TTL: UpdateTtl = UpdateTtl::Keep;

/// Whether a cache is used at all.
pub const ENABLED: bool = true;

/// Largest record that is stored: the bytes of its field names and values.
pub const MAX_ENTRY_BYTES: usize = 1 << 20;

/// Bytes that a near cache keeps, at most.
pub const NEAR_MAX_BYTES: usize = 64 << 20;

/// How long a near cache keeps an entry, at most.
pub const NEAR_MAX_AGE: Duration = Duration::from_secs(30);

/// What a near cache does on a server that can't tell of changes.
pub const NEAR_UNTRACKED: Untracked = Untracked::Off;

/// How often a server is asked whether it still tells near caches of changes.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// How long it may take to answer that.
pub const HEARTBEAT_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a server may take to answer a step, from when its command goes out.
pub const OPERATION_TIMEOUT: Duration = Duration::from_millis(250);

/// Steps in a row without an answer, after which a server is left alone.
pub const BREAKER_THRESHOLD: u32 = 5;

/// How long it is left alone until it is asked again, at most.
pub const BREAKER_PAUSE: Duration = Duration::from_millis(500);

/// Failed invalidations and updates that a backend remembers by their key.
pub const MAX_PENDING_INVALIDATIONS: usize = 10_000;

/// How long [`Backend::close`](crate::Backend::close) waits for them.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Limit of connecting to a backend.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Connections that a Redis backend keeps to each server for updates, at most, beside the one that all other steps share.
pub const UPDATE_CONNECTIONS: usize = 8;

/// Entries that a `memory://` backend keeps, at most.
pub const MAX_ENTRIES: usize = 100_000;

/// Redis counts lifetimes in whole milliseconds, and overflows when they are added to the time of day.
pub(crate) const SHORTEST: Duration = Duration::from_millis(1);
pub(crate) const LONGEST: Duration = Duration::from_secs(36_500 * 24 * 60 * 60);

pub(crate) fn check_duration(setting: &str, duration: Duration) -> Result<(), Error> {
    if (SHORTEST..=LONGEST).contains(&duration) {
        return Ok(());
    }
    Err(Error::config(format!("{setting} is {duration:?}: it must be between 1 ms and 36,500 days")))
}
