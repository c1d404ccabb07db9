//! Loaders that are told about their load and say how its result is stored, loaders of many records, bound loaders, and what runs
//! around a loader.

mod context;
mod enabled;
mod loading;
mod many;
mod told;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_aside::{Cache, Error};

use crate::support::fixture::{Product, loaf};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);

fn product(id: &str, stock: u32) -> Product {
    Product { id: id.to_owned(), ..loaf(stock) }
}

/// The ids of so many products.
fn ids(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("p-{number:03}")).collect()
}

/// The text of the loader's own error.
fn cause(error: &Error) -> String {
    assert!(matches!(error, Error::Load { .. }), "{error:?}");
    std::error::Error::source(error).unwrap().to_string()
}

async fn stock(cache: &Cache<Product>, id: &str) -> Option<u32> {
    cache.peek(id).await.unwrap().map(|product| product.stock)
}

/// The ids of each call of a loader, sorted.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<Vec<String>>>>);

impl Calls {
    fn add(&self, ids: &[String]) {
        let mut ids = ids.to_vec();
        ids.sort();
        self.0.lock().unwrap().push(ids);
    }

    fn take(&self) -> Vec<Vec<String>> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// How many are at work at the same time.
#[derive(Clone, Default)]
struct AtOnce(Arc<(AtomicUsize, AtomicUsize)>);

impl AtOnce {
    /// Works for a moment.
    async fn work(&self) {
        let (now, most) = &*self.0;
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(5)).await;
        now.fetch_sub(1, Ordering::SeqCst);
    }

    fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}
