//! The near cache: records that are kept in memory, and the rules that keep them from getting old.

mod guards;
mod kept;
mod servers;

use std::time::{Duration, Instant};

use cache_aside::{Backend, BackendBuilder, Cache, Cacheable, NearCache, Outcome, TrackerState};
use tokio::time::sleep;

use crate::support::fixture::{Primary, Product, builder, get, loaf, lookup, until};

const KEY: &str = "cache:billing:product:p-001";

const LIMIT: Duration = Duration::from_secs(20);

/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);

const INTERVAL: Duration = Duration::from_millis(200);

const TIMEOUT: Duration = Duration::from_millis(300);

pub(crate) const BOUND: Duration = INTERVAL.saturating_add(TIMEOUT);

#[derive(Debug, Cacheable)]
#[cacheable(namespace = "billing", entity = "order")]
struct Order {
    #[cacheable(id)]
    id: u64,
}

/// Entries that end only for the reason that the test is about.
pub(crate) fn near(backend: &Backend) -> Cache<Product> {
    let builder = builder(backend).ttl(LONG).jitter(0.0).update_timeout(LIMIT);
    builder.near_cache(NearCache::entries(1_000).max_age(LONG)).build().unwrap()
}

fn backend(url: &str) -> BackendBuilder {
    let builder = Backend::builder(url).operation_timeout(Duration::from_secs(5));
    builder.heartbeat_interval(INTERVAL).heartbeat_timeout(TIMEOUT)
}

pub(crate) async fn bounded(url: &str) -> Backend {
    backend(url).connect().await.unwrap()
}

/// Gets until the near cache has the record.
pub(crate) async fn warm(cache: &Cache<Product>, primary: &Primary) {
    until(LIMIT, "nothing is kept", async || outcome(cache, primary).await == Outcome::NearHit).await;
}

pub(crate) async fn live(cache: &Cache<Product>) {
    until(LIMIT, "no tracker is live", async || cache.stats().tracker == TrackerState::Live).await;
}

async fn outcome(cache: &Cache<Product>, primary: &Primary) -> Outcome {
    lookup(cache, primary.loader()).await.unwrap().outcome
}

pub(crate) async fn stock(cache: &Cache<Product>, primary: &Primary) -> u32 {
    get(cache, primary.loader()).await.unwrap().unwrap().stock
}

/// Gets until the record is of this version, and prints how long that took: never longer than the bound.
async fn sees(cache: &Cache<Product>, primary: &Primary, version: u32, what: &str) {
    let (began, mut asked) = (Instant::now(), Duration::ZERO);
    while stock(cache, primary).await != version {
        assert!(asked <= BOUND, "the old record is kept: {what}");
        sleep(Duration::from_micros(100)).await;
        asked = began.elapsed();
    }
    println!("{what}: seen after {:?}", began.elapsed());
}

/// Loads the record, and waits for the message about it: a record that is kept after that stays until the next write.
pub(crate) async fn loaded(cache: &Cache<Product>, primary: &Primary) {
    live(cache).await;
    let told = cache.stats().near_invalidations;
    assert_eq!(outcome(cache, primary).await, Outcome::Loaded);
    until(LIMIT, "no message comes", async || cache.stats().near_invalidations > told).await;
}

/// Writes as another process would.
pub(crate) async fn write_elsewhere(elsewhere: &Cache<Product>, primary: &Primary, stock: u32) {
    primary.put(loaf(stock));
    elsewhere.invalidate("p-001").await.unwrap();
}
