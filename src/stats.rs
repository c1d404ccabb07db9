//! What a cache counts: [`Stats`].

/// What a cache and its clones have done in this process since it was built or
/// [`reset_stats`](crate::Cache::reset_stats) was called.
///
/// Each `get`, `lookup` and `refresh` counts exactly one of `hits`, `not_found_hits`, `misses`, `bypasses`, also when its
/// load fails; none when it was refused before, as for an invalid id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Gets answered by a cached record, in Redis or in the near cache.
    pub hits: u64,
    /// Gets answered by a not-found entry, in Redis or in the near cache.
    pub not_found_hits: u64,
    /// Gets that needed a load, their own or another caller's.
    pub misses: u64,
    /// Loaders that were run, bypasses included.
    pub loads: u64,
    /// Loads that failed, panicked or timed out.
    pub load_errors: u64,
    /// Gets that would have loaded, had they not shared another caller's load: in this process or in another.
    pub stampedes_suppressed: u64,
    /// Loads whose result was not stored, because their lease had been revoked or had run out.
    pub fenced_fills: u64,
    /// Gets that went around the cache, because it was out of reach, disabled, or waited for too long.
    pub bypasses: u64,
    /// Gets answered by a record past its TTL, because its load failed; they are misses too.
    pub stale_served: u64,
    /// Hits that began to load their record anew before it ended.
    pub refreshes_ahead: u64,
    /// Entries that were found unreadable: a miss, which the next load replaces.
    pub decode_errors: u64,
    /// Calls of `update_field`, `update_fields` and `modify` that changed a cached record.
    pub updates: u64,
    /// Records that `invalidate`, `invalidate_many` and `refresh` have invalidated, in however many versions.
    pub invalidations: u64,
    /// Those of the hits and not-found hits that the [near cache](crate::NearCache) has answered.
    pub near_hits: u64,
    /// Messages of the server that an entry has changed, whether it was in the near cache or not.
    pub near_invalidations: u64,
    /// How often the near cache was emptied, because such messages may have been missed, or the server's data were flushed.
    pub near_flushes: u64,
    /// Entries that the near cache did not keep, because they may have changed while they were read.
    pub near_refused_inserts: u64,
    /// Whether the server tells the near cache of changes; it is not a count, and `reset_stats` leaves it.
    pub tracker: TrackerState,
}

/// Whether a server tells a [near cache](crate::NearCache) of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum TrackerState {
    /// There is no near cache, or it needs none: on `memory://`, or in a cache that is not `enabled`.
    #[default]
    Unused,
    /// The server is being asked to, or was lost: gets go to Redis.
    Connecting,
    /// It does.
    Live,
    /// It can't, and is asked again now and then: see [`Untracked`](crate::Untracked).
    Unsupported,
}

impl Stats {
    /// The share of gets that an entry answered, in percent: 0.0 when there was none.
    #[allow(clippy::cast_precision_loss, reason = "a percentage")]
    pub fn hit_rate_pct(&self) -> f64 {
        let hits = self.hits + self.not_found_hits;
        let all = hits + self.misses + self.bypasses;
        if all == 0 { 0.0 } else { 100.0 * hits as f64 / all as f64 }
    }
}
