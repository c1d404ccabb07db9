//! What all threads touch all the time, spread over memory: a cache line that they share would cost each of them more than
//! a near hit does.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

/// More threads than this share.
const PARTS: usize = 16;

thread_local! {
    /// Which part is this thread's.
    static PART: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % PARTS
    };
}

fn part() -> usize {
    // A thread that ends has none any more.
    PART.try_with(|part| *part).unwrap_or(0)
}

/// A counter that is only ever added to.
#[derive(Default)]
pub(crate) struct SpreadCounter([CachePadded<AtomicU64>; PARTS]);

impl SpreadCounter {
    pub(crate) fn add(&self) {
        self.0[part()].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.iter().map(|counter| counter.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn reset(&self) {
        self.0.iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
    }
}

/// An `Arc` with a count of references for each part.
pub(crate) struct SpreadArc<T>(Arc<[Handle<T>]>);

/// A reference for one part's threads, to one for all threads.
pub(crate) type Handle<T> = Arc<CachePadded<Arc<T>>>;

impl<T> SpreadArc<T> {
    pub(crate) fn new(value: T) -> Self {
        let value = Arc::new(value);
        Self((0..PARTS).map(|_| Arc::new(CachePadded::new(value.clone()))).collect())
    }

    /// A reference for calls of this thread.
    pub(crate) fn handle(&self) -> Handle<T> {
        self.0[part()].clone()
    }
}

impl<T> Clone for SpreadArc<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for SpreadArc<T> {
    type Target = Arc<T>;

    fn deref(&self) -> &Arc<T> {
        &self.0[0]
    }
}
