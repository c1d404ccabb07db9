//! The near cache: decoded records in process memory, kept right by the server's own invalidation messages.
//!
//! This file has its settings. `records` keeps what was read, `tracking` knows whether the messages come, `stripes` what they
//! have told, and `clock` how old something is. The connections that the messages come over are the backend's.
//!
//! *The ticket rule.* What was read from Redis may be older than a message that has been handled since. So a reader takes a
//! ticket before its read is sent, each message about the key makes earlier tickets void, and only what has a valid ticket
//! is kept.

mod clock;
mod records;
mod stripes;
mod tracking;

use std::time::Duration;

pub(crate) use self::clock::Moment;
pub(crate) use self::records::Near;
pub(crate) use self::tracking::{Ticket, Tracking, Wanted};
use crate::defaults::{self, check_duration};
use crate::error::Error;

/// Keeps decoded records in this process' memory, in front of Redis: the setting
/// [`near_cache`](crate::CacheBuilder::near_cache) of a cache.
///
/// A hit there costs no round trip, and hands out the same [`Arc`](std::sync::Arc) again. The server tells this process of
/// each change of an entry, whoever made it (`CLIENT TRACKING` with `BCAST`), over a connection that all near caches of a
/// [`Backend`](crate::Backend) share. So a write of another process is seen as soon as such a message has come, mostly within
/// a millisecond; when that connection is lost without a trace, at most the backend's
/// [`heartbeat_interval`](crate::BackendBuilder::heartbeat_interval) and
/// [`heartbeat_timeout`](crate::BackendBuilder::heartbeat_timeout) together after it; and nothing is kept for longer than
/// `max_age`. This process' own writes over the same backend are seen at once. While the connection is not there, reads go to
/// Redis. `docs/protocol.md` has the promise in full.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use cache_aside::{Backend, Cache, Cacheable, NearCache};
/// # #[derive(Debug, Cacheable)]
/// # struct Product { #[cacheable(id)] id: String }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cache_aside::Error> {
/// # let backend = Backend::connect("memory://").await?;
/// let products: Cache<Product> = Cache::builder(backend)
///     .near_cache(NearCache::entries(10_000).max_age(Duration::from_secs(5)))
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it does nothing until it is passed to `near_cache`"]
pub struct NearCache {
    entries: usize,
    max_bytes: usize,
    max_age: Duration,
    untracked: Untracked,
}

/// What a near cache does on a server that can't tell of changes: one behind a proxy, or without RESP3, or whose user may
/// not `CLIENT TRACKING`. A warning says so in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Untracked {
    /// It keeps nothing: each get goes to Redis.
    #[default]
    Off,
    /// It keeps what was read for `max_age`, whatever other processes write meanwhile. This process' own writes are seen at
    /// once all the same.
    MaxAge,
}

impl NearCache {
    /// Keeps at most so many entries; beyond, those that are read least go first.
    pub fn entries(entries: usize) -> Self {
        Self {
            entries,
            max_bytes: defaults::NEAR_MAX_BYTES,
            max_age: defaults::NEAR_MAX_AGE,
            untracked: defaults::NEAR_UNTRACKED,
        }
    }

    /// The most memory that the kept records may take, in bytes: estimated from the size of the struct, the heap memory that
    /// its values own, the id, and the record's place in the cache. Each record counts as `max_bytes / entries` at least;
    /// one that would take nearly all of it alone is not kept. Default: [`defaults::NEAR_MAX_BYTES`], 64 MiB.
    pub fn max_bytes(mut self, max_bytes: usize) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// How long an entry is kept at most, and never longer than its TTL in Redis: a bound on its age that holds whatever
    /// happens. Default: [`defaults::NEAR_MAX_AGE`].
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = max_age;
        self
    }

    /// What to do on a server that can't tell of changes. Default: [`defaults::NEAR_UNTRACKED`], off.
    pub fn untracked(mut self, untracked: Untracked) -> Self {
        self.untracked = untracked;
        self
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        check_bound("max_age of the near cache", self.max_age)?;
        if self.entries == 0 {
            return Err(Error::config("NearCache::entries is 0: to keep nothing leave near_cache out"));
        }
        if self.max_bytes < self.entries {
            let Self { entries, max_bytes, .. } = self;
            return Err(Error::config(format!(
                "max_bytes of the near cache is {max_bytes}: it must be at least one for each of its {entries} entries"
            )));
        }
        Ok(())
    }
}

/// The clock moves in steps, so nothing would be kept for less than one.
pub(crate) fn check_bound(setting: &str, bound: Duration) -> Result<(), Error> {
    check_duration(setting, bound)?;
    if bound > clock::STEP {
        return Ok(());
    }
    Err(Error::config(format!("{setting} is {bound:?}: it must be more than {:?}", clock::STEP)))
}
