//! Bare caches in memory, with the same records as a near cache.

use std::sync::Arc;

use crate::measure::{Contender, Operation};
use crate::records::{IDS, Product, Record, borrowed_id, id};

pub(super) const ENTRIES: usize = 10_000;

pub(super) fn hits() -> Vec<Contender> {
    let quick_cache = quick_cache::sync::Cache::new(ENTRIES);
    let moka = moka::sync::Cache::new(ENTRIES as u64);
    for at in 0..IDS {
        let record = Arc::new(Product::sample(id(at)));
        quick_cache.insert(id(at), record.clone());
        moka.insert(id(at), record);
    }
    vec![Contender::new("quick_cache", QuickCache(Arc::new(quick_cache))), Contender::new("moka", Moka(moka))]
}

#[derive(Clone)]
struct QuickCache(Arc<quick_cache::sync::Cache<String, Arc<Product>>>);

impl Operation for QuickCache {
    async fn call(&mut self, at: usize) {
        std::hint::black_box(self.0.get(borrowed_id(at)).expect("it was stored"));
    }
}

#[derive(Clone)]
struct Moka(moka::sync::Cache<String, Arc<Product>>);

impl Operation for Moka {
    async fn call(&mut self, at: usize) {
        std::hint::black_box(self.0.get(borrowed_id(at)).expect("it was stored"));
    }
}
