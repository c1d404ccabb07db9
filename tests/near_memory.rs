//! Memory of a near cache: its records take about as much memory as `max_bytes` allows. In a test binary of its own,
//! since it measures the memory of the whole process.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use cache_aside::{Backend, BoxError, Cache, Cacheable, NearCache, TrackerState};
use testkit::server::{Flavor, Server};

#[derive(Debug, Cacheable)]
#[cacheable(namespace = "billing", ttl = "1h")]
struct Customer {
    #[cacheable(id)]
    id: u32,
    name: String,
    email: String,
    phone: Option<String>,
    street: String,
    city: String,
    country: String,
    balance_cents: i64,
    orders: u32,
    discount: f64,
    newsletter: bool,
    notes: Option<String>,
    #[cacheable(json)]
    tags: Vec<String>,
}

fn customer(id: u32) -> Customer {
    Customer {
        id,
        name: format!("Customer {id}"),
        email: format!("customer-{id}@example.com"),
        phone: id.is_multiple_of(2).then(|| format!("+49 30 {id:08}")),
        street: format!("Long Street {}", id % 300),
        city: "Berlin".to_owned(),
        country: "DE".to_owned(),
        balance_cents: i64::from(id) * 100,
        orders: id % 50,
        discount: 0.05,
        newsletter: id.is_multiple_of(3),
        notes: id.is_multiple_of(10).then(|| "prefers deliveries in the afternoon, before five".to_owned()),
        tags: vec!["wholesale".to_owned(), "retail".to_owned()],
    }
}

async fn load(ids: Vec<u32>) -> Result<Vec<Customer>, BoxError> {
    Ok(ids.into_iter().map(customer).collect())
}

/// The resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test]
async fn a_near_cache_takes_little_more_memory_than_max_bytes() {
    const RECORDS: u32 = 100_000;
    /// Few at a time, so that what a batch needs for itself doesn't count.
    const AT_A_TIME: usize = 100;
    const MAX_BYTES: usize = 32 * 1024 * 1024;
    const LONG: Duration = Duration::from_secs(600);
    const PATIENCE: Duration = Duration::from_secs(30);
    let server = Server::start(Flavor::Redis70).await;
    let backend = Backend::builder(&server.url()).operation_timeout(PATIENCE).heartbeat_timeout(PATIENCE);
    let backend = backend.connect().await.unwrap();
    let ids: Vec<_> = (0..RECORDS).collect();
    let get_all = async |cache: &Cache<Customer>| {
        for ids in ids.chunks(AT_A_TIME) {
            for customer in cache.get_many(ids.iter().copied(), load).await {
                assert!(customer.unwrap().is_some());
            }
        }
    };
    get_all(&Cache::new(backend.clone())).await;

    let before = resident();
    let near = NearCache::entries(RECORDS as usize).max_bytes(MAX_BYTES).max_age(LONG);
    let cache = Cache::<Customer>::builder(backend).near_cache(near).build().unwrap();
    while cache.stats().tracker != TrackerState::Live {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..3 {
        get_all(&cache).await;
    }
    let (takes, near_hits) = (resident().saturating_sub(before), cache.stats().near_hits);
    println!("{takes} bytes for at most {MAX_BYTES}, {near_hits} near hits");
    assert!(takes * 4 <= MAX_BYTES * 5, "{takes} bytes are more than 1.25 times {MAX_BYTES}");
    assert!(near_hits > u64::from(RECORDS) / 4, "only {near_hits} near hits");
}
