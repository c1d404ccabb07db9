//! The records of a near cache: which are kept, for how long, and within how much memory.

use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use super::{Moment, NearCache, ReadEpoch, Tracking, Untracked};
use crate::metrics::NearMetrics;
use crate::proof::Guard;
use crate::record::{Key, Record, heap};
use crate::stats::TrackerState;

/// The near cache of one [`Cache`](crate::Cache) and its clones.
pub(crate) struct Near {
    settings: NearCache,
    /// By id, as it is written in the key.
    kept: Cache<Box<str>, Kept, Weight, RandomState>,
    tracking: Arc<Tracking>,
    pub(crate) metrics: NearMetrics,
}

/// A record, or that the primary has none.
#[derive(Clone)]
struct Kept {
    record: Option<Record>,
    ends: Moment,
    bytes: u64,
}

/// The bytes that an entry takes in the tables of `quick_cache`, which also remembers keys that it has evicted.
const TABLE_BYTES: usize = 2 * size_of::<(Box<str>, Kept)>();

/// Weighs entries in bytes, each as `least` or more: then the bound of the weight also bounds the number of entries.
#[derive(Clone)]
struct Weight {
    least: u64,
}

impl Weighter<Box<str>, Kept> for Weight {
    fn weight(&self, _id: &Box<str>, kept: &Kept) -> u64 {
        kept.bytes.max(self.least)
    }
}

impl Near {
    /// `prefix`: of all keys. `largest`: the size limit of entries in Redis, in bytes.
    pub(crate) fn new(
        settings: NearCache,
        prefix: &str,
        largest: usize,
        tracking: &Arc<Tracking>,
        metrics: NearMetrics,
    ) -> Arc<Self> {
        /// The bound is divided among the shards. Each has room for this many of the largest.
        const LARGEST_IN_SHARD: usize = 2;
        /// With more shards than this, threads would hardly compete less for one.
        const MOST_SHARDS: usize = 64;
        let entries = settings.entries as u64;
        let least = settings.max_bytes as u64 / entries;
        let shards = settings.max_bytes / largest.saturating_mul(LARGEST_IN_SHARD);
        let mut options = OptionsBuilder::new();
        options.estimated_items_capacity(settings.entries).weight_capacity(least * entries);
        options.shards(1 << shards.clamp(1, MOST_SHARDS).ilog2());
        if settings.entries == 1 {
            // By default a part is reserved for new entries, which would leave too little for one.
            options.hot_allocation(1.0);
        }
        let kept = Cache::with_options(
            options.build().expect("both capacities are set"),
            Weight { least },
            RandomState::default(),
            DefaultLifecycle::default(),
        );
        let near = Arc::new(Self { settings, kept, tracking: tracking.clone(), metrics });
        tracking.add(prefix, Arc::downgrade(&near));
        near
    }

    /// The record with this id, or `Some(None)` if the primary has none; `None` if neither is known.
    pub(crate) fn get(&self, id: &str) -> Option<Option<Record>> {
        let now = Moment::now();
        if !self.is_usable(now) {
            return None;
        }
        let kept = self.kept.get(id)?;
        if now >= kept.ends {
            return None;
        }
        match kept.record {
            Some(_) => self.metrics.hits.add(),
            None => self.metrics.not_found_hits.add(),
        }
        Some(kept.record)
    }

    fn is_usable(&self, now: Moment) -> bool {
        self.tracking.is_live(now) || self.settings.untracked == Untracked::MaxAge && self.tracking.is_unsupported()
    }

    /// The epoch of a key, for a read that is sent after this. `None` while its result couldn't be kept, since no messages
    /// are being received.
    pub(crate) fn read_epoch(&self, key: &Key) -> Option<ReadEpoch> {
        let noted_at = Moment::now();
        let epoch = self.tracking.registry.epochs.current(key);
        // Checked after the epoch is noted: if messages stop after this, all epochs advance.
        self.is_usable(noted_at).then_some(ReadEpoch { epoch, noted_at })
    }

    /// Keeps the result of a read, unless the key has changed since `read`. `bytes`: the record's size in memory; `ttl`: what is
    /// left of its lifetime in Redis.
    pub(crate) fn keep(&self, key: &Key, read: ReadEpoch, record: Option<Record>, bytes: usize, ttl: Option<Duration>) {
        let id = key.id();
        let bytes = (bytes + heap::allocation(id.len()) + TABLE_BYTES) as u64;
        let lifetime = ttl.map_or(self.settings.max_age, |ttl| ttl.min(self.settings.max_age));
        let kept = Kept { record, ends: read.noted_at.within(lifetime), bytes };
        // Outlives the lock below, so that evicted records are dropped without it.
        let mut evicted = Default::default();
        let epoch = self.tracking.registry.epochs.lock(key);
        if *epoch != read.epoch && self.tracking.enforces(Guard::NearEpoch) {
            drop(epoch);
            return self.metrics.refused_inserts.add();
        }
        self.kept.insert_with_lifecycle(id.into(), kept, &mut evicted);
    }

    /// Drops the record with this id. `by_message`: because of a message from the server, not of a write by this process.
    pub(super) fn invalidate(&self, id: &str, by_message: bool) {
        self.kept.remove(id);
        if by_message {
            self.metrics.invalidations.add();
        }
    }

    pub(super) fn flush(&self) {
        self.kept.clear();
        self.metrics.flushes.add();
    }

    pub(crate) fn tracker(&self) -> TrackerState {
        self.tracking.state(Moment::now())
    }
}
