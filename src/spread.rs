//! What all threads touch all the time, spread over memory: a cache line that they share would cost each of them more than
//! a near hit does.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

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

/// In a cache line of its own, or two that are fetched together.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// A counter that is only ever added to.
#[derive(Debug, Default)]
pub(crate) struct SpreadCounter([Apart<AtomicU64>; PARTS]);

impl SpreadCounter {
    pub(crate) fn add(&self) {
        self.0[part()].0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.iter().map(|Apart(counter)| counter.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn reset(&self) {
        self.0.iter().for_each(|Apart(counter)| counter.store(0, Ordering::Relaxed));
    }
}

/// An `Arc` with a count of references for each part.
pub(crate) struct SpreadArc<T>(Arc<[Arc<Handle<T>>]>);

/// What one part's references are to.
pub(crate) struct Handle<T>(Apart<Arc<T>>);

impl<T> SpreadArc<T> {
    pub(crate) fn new(value: T) -> Self {
        let value = Arc::new(value);
        Self((0..PARTS).map(|_| Arc::new(Handle(Apart(value.clone())))).collect())
    }

    /// A reference for calls of this thread.
    pub(crate) fn handle(&self) -> Arc<Handle<T>> {
        self.0[part()].clone()
    }
}

impl<T> Clone for SpreadArc<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for SpreadArc<T> {
    type Target = Handle<T>;

    fn deref(&self) -> &Handle<T> {
        &self.0[0]
    }
}

impl<T> Handle<T> {
    /// A reference for all threads.
    pub(crate) fn shared(&self) -> Arc<T> {
        self.0.0.clone()
    }
}

impl<T> Deref for Handle<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.0
    }
}
