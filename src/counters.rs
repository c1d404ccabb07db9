//! Counters, and the reference count of a cache. Those that every near hit changes are sharded by thread: contention for a shared
//! cache line would cost more than the hit itself.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

use crate::metrics::Series;
use crate::stats::Stats;

/// A monotonic counter: for [`Stats`], and for its metric if it has one.
#[derive(Default)]
pub(crate) struct Counter {
    count: AtomicU64,
    series: Option<Series>,
}

impl Counter {
    pub(crate) fn with(series: Series) -> Self {
        Self { series: Some(series), ..Self::default() }
    }

    pub(crate) fn add(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
        if let Some(series) = &self.series {
            series.count(1);
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(crate) fn reset(&self) {
        self.count.store(0, Ordering::Relaxed);
    }
}

macro_rules! counters {
    ($($name:ident)*) => {
        /// The live counters behind [`Stats`].
        #[derive(Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Stats {
                Stats { $($name: self.$name.get(),)* ..Stats::default() }
            }

            pub(crate) fn reset(&self) {
                $(self.$name.reset();)*
            }
        }
    };
}

counters! {
    hits not_found_hits misses loads load_errors stampedes_suppressed fenced_fills bypasses stale_served
    stale_revalidating refreshes_ahead decode_errors encode_errors invalid_ids other_ids updates invalidations
}

/// Threads beyond this number share shards.
const SHARDS: usize = 16;

thread_local! {
    /// This thread's shard.
    static SHARD: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS
    };
}

fn shard_of_thread() -> usize {
    // A thread that is ending has no thread-locals any more.
    SHARD.try_with(|shard| *shard).unwrap_or(0)
}

/// A monotonic counter, sharded by thread.
#[derive(Default)]
pub(crate) struct ShardedCounter([CachePadded<AtomicU64>; SHARDS]);

impl ShardedCounter {
    pub(crate) fn add(&self) {
        self.0[shard_of_thread()].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.iter().map(|counter| counter.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn reset(&self) {
        self.0.iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
    }
}

/// An `Arc` with a reference count for each shard.
pub(crate) struct ShardedArc<T>(Arc<[Arc<CachePadded<Arc<T>>>]>);

impl<T> ShardedArc<T> {
    pub(crate) fn new(value: T) -> Self {
        let value = Arc::new(value);
        Self((0..SHARDS).map(|_| Arc::new(CachePadded::new(value.clone()))).collect())
    }

    /// A reference for calls of this thread.
    pub(crate) fn shard(&self) -> Arc<CachePadded<Arc<T>>> {
        self.0[shard_of_thread()].clone()
    }
}

impl<T> Clone for ShardedArc<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for ShardedArc<T> {
    type Target = Arc<T>;

    fn deref(&self) -> &Arc<T> {
        &self.0[0]
    }
}
