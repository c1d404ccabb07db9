//! The near cache: decoded records in process memory, which the server's invalidation messages keep up to date.
//!
//! This file has the settings. `records` keeps what was read, `session` knows whether messages are being received, and has the
//! clock for that, `registry` passes messages on to the near caches, and `epochs` decides whether what was read may be older than
//! a message. The connections that messages come over are the backend's.

mod epochs;
mod records;
mod registry;
mod session;

use std::time::Duration;

pub(crate) use self::epochs::ReadEpoch;
pub(crate) use self::records::Near;
pub(crate) use self::session::{Moment, Tracking, Wanted};
use crate::defaults::{self, check_duration};
use crate::error::Error;

/// Keeps decoded records in this process' memory, in front of Redis: the setting
/// [`near_cache`](crate::CacheBuilder::near_cache) of a cache.
///
/// A hit there costs no round trip, and returns the same [`Arc`](std::sync::Arc) again. The server sends this process a message
/// about each change of an entry, whoever made it (`CLIENT TRACKING` with `BCAST`), over a connection that all near caches of a
/// [`Backend`](crate::Backend) share. So another process' write is usually seen within a millisecond. If that connection is lost
/// without notice, it is seen at the latest after the backend's
/// [`heartbeat_interval`](crate::BackendBuilder::heartbeat_interval) and
/// [`heartbeat_timeout`](crate::BackendBuilder::heartbeat_timeout) together. Nothing is kept for longer than `max_age`. This
/// process' own writes over the same backend are seen at once. While there is no such connection, reads go to Redis.
/// [The protocol](crate::docs::protocol#the-promise) has the promise in full.
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

/// What a near cache does if the server can't send invalidation messages: behind a proxy, without RESP3, or because the user has
/// no permission for `CLIENT TRACKING`. A warning is logged in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Untracked {
    /// It keeps nothing: each get goes to Redis.
    #[default]
    Off,
    /// It keeps records for `max_age`, even if other processes change them meanwhile. This process' own writes are still seen at
    /// once.
    MaxAge,
}

impl NearCache {
    /// Keeps at most this many entries, at least 1. Those that are read least are evicted first.
    pub fn entries(entries: usize) -> Self {
        Self {
            entries,
            max_bytes: defaults::NEAR_MAX_BYTES,
            max_age: defaults::NEAR_MAX_AGE,
            untracked: defaults::NEAR_UNTRACKED,
        }
    }

    /// The most memory that the records may take, in bytes: estimated from the size of the struct, the heap memory that its
    /// values own, the id, and the cache's own tables. Each record counts as `max_bytes / entries` at least, which must not be
    /// less than 1. A record that takes more than about twice [`max_entry_bytes`](crate::CacheBuilder::max_entry_bytes), or nearly
    /// all of `max_bytes`, is not kept. Default: [`defaults::NEAR_MAX_BYTES`], 64 MiB.
    pub fn max_bytes(mut self, max_bytes: usize) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// The longest time that an entry is kept, and never longer than its TTL in Redis. This bounds its age whatever happens.
    /// More than 10 ms (on Windows 16 ms), and at most 36,500 days. Default: [`defaults::NEAR_MAX_AGE`], 30 seconds.
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = max_age;
        self
    }

    /// What to do if the server can't send invalidation messages. Default: [`defaults::NEAR_UNTRACKED`], off.
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

/// The clock moves in steps, so with a shorter bound nothing would be kept.
pub(crate) fn check_bound(setting: &str, bound: Duration) -> Result<(), Error> {
    check_duration(setting, bound)?;
    if bound > session::STEP {
        return Ok(());
    }
    Err(Error::config(format!("{setting} is {bound:?}: it must be more than {:?}", session::STEP)))
}
