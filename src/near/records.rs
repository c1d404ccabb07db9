//! The records that a near cache keeps, each with the moment at which it ends.

use std::sync::{Arc, Weak};
use std::time::Duration;

use foldhash::fast::RandomState;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use super::clock::Moment;
use super::tracking::{Listener, Ticket, Tracking};
use super::{NearCache, Untracked};
use crate::meter::NearMeter;
use crate::record::{Key, Record, heap};
use crate::stats::TrackerState;

/// The near cache of one [`Cache`](crate::Cache) and its clones.
pub(crate) struct Near {
    settings: NearCache,
    /// By the id as it stands in the key.
    kept: Cache<Box<str>, Kept, Weight, RandomState>,
    tracking: Arc<Tracking>,
    pub(crate) meter: NearMeter,
}

/// What is kept of a record; `None` where the primary has none.
#[derive(Clone)]
struct Kept {
    record: Option<Record>,
    ends: Moment,
    bytes: u64,
}

/// What an entry takes in the cache's own tables, in bytes, with its share of the keys that are remembered after an eviction.
const PLACE: usize = 2 * size_of::<(Box<str>, Kept)>();

/// Bytes, but at least so many: so there is one bound for both.
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
    /// `prefix`: that of all keys. `largest`: the most bytes that a record is stored with.
    pub(crate) fn new(
        settings: NearCache,
        prefix: &str,
        largest: usize,
        tracking: &Arc<Tracking>,
        meter: NearMeter,
    ) -> Arc<Self> {
        /// In each shard there is room for so many of the largest.
        const LARGEST_IN_SHARD: usize = 2;
        /// More would not meet less.
        const MOST_SHARDS: usize = 64;
        let entries = settings.entries as u64;
        let least = settings.max_bytes as u64 / entries;
        let shards = settings.max_bytes / largest.saturating_mul(LARGEST_IN_SHARD);
        let mut options = OptionsBuilder::new();
        options.estimated_items_capacity(settings.entries).weight_capacity(least * entries);
        options.shards(1 << shards.clamp(1, MOST_SHARDS).ilog2());
        if settings.entries == 1 {
            // Else a part is set apart for what is new, which leaves too little for one.
            options.hot_allocation(1.0);
        }
        let kept = Cache::with_options(
            options.build().expect("both capacities are set"),
            Weight { least },
            RandomState::default(),
            DefaultLifecycle::default(),
        );
        let near = Arc::new(Self { settings, kept, tracking: tracking.clone(), meter });
        let listener: Weak<dyn Listener> = Arc::<Self>::downgrade(&near);
        tracking.add(prefix, listener);
        near
    }

    /// What is kept of this id: a record, or that there is none.
    pub(crate) fn get(&self, id: &str) -> Option<Option<Record>> {
        let now = Moment::now();
        if !self.is_usable(now) {
            return None;
        }
        let kept = self.kept.get(id).filter(|kept| now < kept.ends)?;
        match kept.record {
            Some(_) => self.meter.hits.add(),
            None => self.meter.not_found_hits.add(),
        }
        Some(kept.record)
    }

    fn is_usable(&self, now: Moment) -> bool {
        self.tracking.is_live(now) || self.settings.untracked == Untracked::MaxAge && self.tracking.is_unsupported()
    }

    /// The right to keep what a read brings that is sent after this; none while it would not be told of changes.
    pub(crate) fn ticket(&self, key: &Key) -> Option<Ticket> {
        let ticket = self.tracking.ticket(key, Moment::now());
        // Only now: when the messages end after this, that makes the ticket void.
        self.is_usable(ticket.taken).then_some(ticket)
    }

    /// Keeps what was read. `bytes`: what the record takes in memory; `ttl`: how long it is to live.
    pub(crate) fn keep(&self, key: &Key, ticket: Ticket, record: Option<Record>, bytes: usize, ttl: Option<Duration>) {
        let id = key.id();
        let bytes = (bytes + heap::allocation(id.len()) + PLACE) as u64;
        let lifetime = ttl.map_or(self.settings.max_age, |ttl| ttl.min(self.settings.max_age));
        let kept = Kept { record, ends: ticket.taken.within(lifetime), bytes };
        // Evicted entries are moved here, so that they are dropped after the locks are given back.
        let mut evicted = Default::default();
        let is_kept =
            self.tracking.keep(key, ticket, || self.kept.insert_with_lifecycle(id.into(), kept, &mut evicted));
        if !is_kept {
            self.meter.refused_inserts.add();
        }
    }

    pub(crate) fn tracker(&self) -> TrackerState {
        self.tracking.state(Moment::now())
    }
}

impl Listener for Near {
    fn forget(&self, id: &str, by_message: bool) {
        self.kept.remove(id);
        if by_message {
            self.meter.invalidations.add();
        }
    }

    fn flush(&self) {
        self.kept.clear();
        self.meter.flushes.add();
    }
}
