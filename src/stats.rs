//! The statistics of a cache: [`Stats`].

/// Counts of what a cache and its clones have done in this process, since it was built or
/// [`reset_stats`](crate::Cache::reset_stats) was called.
///
/// Each `get`, `lookup` and `refresh` adds to exactly one of `hits`, `not_found_hits`, `misses` and `bypasses`, even if its
/// load fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Gets answered by a cached record, in Redis or in the near cache.
    pub hits: u64,
    /// Gets answered by a not-found entry, in Redis or in the near cache.
    pub not_found_hits: u64,
    /// Gets that needed a load, their own or another caller's.
    pub misses: u64,
    /// Loaders that were run, bypasses included. A call of a batch loader is one.
    pub loads: u64,
    /// Loads that failed, panicked or timed out.
    pub load_errors: u64,
    /// Gets that didn't load because they shared another caller's load, in this process or in another.
    pub stampedes_suppressed: u64,
    /// Loads whose result was not stored, because their lease had been revoked or had run out.
    pub fenced_fills: u64,
    /// Gets that went around the cache: see [`Outcome::Bypassed`](crate::Outcome::Bypassed).
    pub bypasses: u64,
    /// Gets answered by a record past its TTL, because its load failed or is under way. They are misses too.
    pub stale_served: u64,
    /// The part of `stale_served` whose load was under way: see
    /// [`stale_while_revalidate`](crate::CacheBuilder::stale_while_revalidate).
    pub stale_revalidating: u64,
    /// Hits that started to reload their record before it expired.
    pub refreshes_ahead: u64,
    /// Unreadable entries. Each is a miss, and the next load replaces it.
    pub decode_errors: u64,
    /// Loaded records and updates that were not stored, because a value can't be encoded, or would not come back from its text.
    pub encode_errors: u64,
    /// Calls with an id that can't be part of a key. Gets with such an id are bypasses too.
    pub invalid_ids: u64,
    /// Records that were not stored, because a loader returned them with another id than it was asked for.
    pub other_ids: u64,
    /// Calls of `update_field`, `update_fields` and `modify` that changed a cached record.
    pub updates: u64,
    /// Records that `invalidate`, `invalidate_many` and `refresh` have invalidated; all versions of a record count as one.
    pub invalidations: u64,
    /// The hits and not-found hits that the [near cache](crate::NearCache) has answered.
    pub near_hits: u64,
    /// Invalidation messages from the server, whether the entry was in the near cache or not.
    pub near_invalidations: u64,
    /// How often the near cache was emptied, because messages may have been missed, the server was flushed, or
    /// [`clear`](crate::Cache::clear) was called.
    pub near_flushes: u64,
    /// Entries that the near cache did not keep, because they may have changed while they were read.
    pub near_refused_inserts: u64,
    /// Whether the near cache receives invalidation messages. This isn't a count, and `reset_stats` doesn't change it.
    pub tracker: TrackerState,
}

/// Whether a [near cache](crate::NearCache) receives invalidation messages from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum TrackerState {
    /// There is no near cache, or it isn't used: on `memory://`, or in a cache that was not `enabled` since it was built.
    #[default]
    Unused,
    /// The connection for messages is being made, or was lost: gets go to Redis.
    Connecting,
    /// Messages are being received.
    Live,
    /// The server can't send messages, and is asked again now and then: see [`Untracked`](crate::Untracked).
    Unsupported,
}

impl Stats {
    /// The percentage of gets that an entry has answered, or 0.0 if there were no gets.
    #[allow(clippy::cast_precision_loss, reason = "a percentage")]
    pub fn hit_rate_pct(&self) -> f64 {
        let hits = self.hits + self.not_found_hits;
        let all = hits + self.misses + self.bypasses;
        if all == 0 { 0.0 } else { 100.0 * hits as f64 / all as f64 }
    }
}
