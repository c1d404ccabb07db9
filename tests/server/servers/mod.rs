//! Proxies and a look-alike that other people have written, run as they are. What each of them lacks, and what the library does
//! without it, is in `docs/servers.md`.

mod envoy;
mod fakeredis;
mod haproxy;
mod twemproxy;

use std::time::Duration;

use cache_aside::proof::{Phase, Step};
use cache_aside::{BoxError, Cache, CacheBuilder, Error, Lookup, NearCache, Outcome, TrackerState};
use testkit::server::Server;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::fixture::{Primary, Product, builder, connect, get, load_at_gate, loaf, lookup, until};
use crate::support::process::Process;

const LIMIT: Duration = Duration::from_secs(20);
/// Longer than any test: a get that waits for a lease to expire doesn't end.
const LEASE: Duration = Duration::from_secs(600);

/// What works.
struct Works {
    /// Whether an update is made in place. If not, it is an invalidation.
    updates: bool,
    clear: bool,
    near: TrackerState,
}

/// A cache as in a process of its own.
async fn process(url: &str) -> Cache<Product> {
    set(builder(&connect(url).await)).build().unwrap()
}

fn set(cache: CacheBuilder<Product>) -> CacheBuilder<Product> {
    cache.lock_ttl(LEASE).not_found_ttl(LIMIT)
}

/// Starts a lookup that has to wait, since another process has the lease.
async fn waits(process: &Process, primary: &Primary) -> JoinHandle<Result<Lookup<Product>, Error>> {
    let refused = process.hold(Step::Acquire, Phase::After);
    let waiting = tokio::spawn(lookup(&process.cache, primary.loader()));
    refused.arrival().await;
    refused.open();
    waiting
}

async fn outcome(cache: &Cache<Product>, primary: &Primary) -> Outcome {
    lookup(cache, primary.loader()).await.unwrap().outcome
}

async fn stock(cache: &Cache<Product>, primary: &Primary) -> u32 {
    get(cache, primary.loader()).await.unwrap().unwrap().stock
}

/// Two processes use one record in all ways. No step goes around the cache or waits for a lease to expire.
async fn is_used(url: &str, works: Works) {
    let (first, other) = (process(url).await, Process::of(&connect(url).await, None, set));
    let second = &other.cache;
    let use_it = async {
        loads_once(&first, &other).await;
        writes(&first, second, &works).await;
        is_missing(&first, second).await;
        fails(&first, &other).await;
        clears(&first, second, &works).await;
        keeps_near(url, second, &works).await;
    };
    timeout(LIMIT, use_it).await.expect("nothing waits for a lease to expire");
    for cache in [&first, second] {
        assert_eq!(cache.stats().bypasses, 0);
        assert!(cache.pending().is_empty());
    }
}

async fn loads_once(first: &Cache<Product>, second: &Process) {
    let primary = Primary::of(loaf(1));
    let (gate, loading) = load_at_gate(first, &primary).await;
    let waiting = waits(second, &primary).await;
    gate.open();
    assert_eq!(loading.await.unwrap().unwrap().as_deref(), Some(&loaf(1)));
    assert_eq!(waiting.await.unwrap().unwrap().outcome, Outcome::Waited);
    assert_eq!(primary.loads(), 1);
    assert_eq!(outcome(first, &primary).await, Outcome::Hit);
    assert_eq!(outcome(&second.cache, &primary).await, Outcome::Hit);
}

async fn writes(first: &Cache<Product>, second: &Cache<Product>, works: &Works) {
    let primary = Primary::of(loaf(2));
    assert_eq!(first.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap(), works.updates);
    let found = lookup(second, primary.loader()).await.unwrap();
    assert_eq!(found.outcome, if works.updates { Outcome::Hit } else { Outcome::Loaded });
    assert_eq!(found.value.as_deref(), Some(&loaf(2)));

    primary.put(loaf(3));
    assert!(second.invalidate("p-001").await.unwrap());
    // A load that has begun before an invalidation doesn't fill.
    let (gate, loading) = load_at_gate(first, &primary).await;
    primary.put(loaf(4));
    assert!(!second.invalidate("p-001").await.unwrap());
    gate.open();
    loading.await.unwrap().unwrap();
    assert_eq!(stock(second, &primary).await, 4);
    assert_eq!(outcome(first, &primary).await, Outcome::Hit);
}

async fn is_missing(first: &Cache<Product>, second: &Cache<Product>) {
    let primary = Primary::default();
    first.invalidate("p-001").await.unwrap();
    assert_eq!(lookup(second, primary.loader()).await.unwrap().value, None);
    assert_eq!(outcome(first, &primary).await, Outcome::NotFoundHit);
    primary.put(loaf(5));
    first.invalidate("p-001").await.unwrap();
    assert_eq!(stock(second, &primary).await, 5);
}

/// A load fails while another process waits for it, which then loads by itself.
async fn fails(first: &Cache<Product>, second: &Process) {
    let primary = Primary::of(loaf(6));
    first.invalidate("p-001").await.unwrap();
    primary.down(true);
    let (gate, failing) = load_at_gate(first, &primary).await;
    primary.down(false);
    let waiting = waits(second, &primary).await;
    gate.open();
    failing.await.unwrap().unwrap_err();
    assert_eq!(waiting.await.unwrap().unwrap().value.as_deref(), Some(&loaf(6)));
    until(LIMIT, "nothing is stored", async || outcome(first, &primary).await == Outcome::Hit).await;
}

async fn clears(first: &Cache<Product>, second: &Cache<Product>, works: &Works) {
    let primary = Primary::of(loaf(6));
    if works.clear {
        assert_eq!(first.clear().await.unwrap(), 1);
        assert_eq!(outcome(second, &primary).await, Outcome::Loaded);
    } else {
        println!("{}", first.clear().await.unwrap_err());
    }
    // Nor is the whole type pending.
    assert_eq!(outcome(first, &primary).await, Outcome::Hit);
}

async fn keeps_near(url: &str, elsewhere: &Cache<Product>, works: &Works) {
    let near = builder(&connect(url).await).near_cache(NearCache::entries(10)).build().unwrap();
    until(LIMIT, "near caches are in another state", async || near.stats().tracker == works.near).await;
    let primary = Primary::of(loaf(6));
    let kept = if works.near == TrackerState::Live { Outcome::NearHit } else { Outcome::Hit };
    until(LIMIT, "nothing is kept", async || outcome(&near, &primary).await == kept).await;
    primary.put(loaf(7));
    elsewhere.invalidate("p-001").await.unwrap();
    until(LIMIT, "the old record stays", async || stock(&near, &primary).await == 7).await;
    assert_eq!(near.stats().bypasses, 0);
}

/// Loads and invalidates many records, and checks that all of these servers have had some of them.
async fn is_spread_over(url: &str, servers: &[Server]) {
    let (cache, primary) = (process(url).await, Primary::default());
    let ids: Vec<_> = (0..40).map(|number| format!("p-{number}")).collect();
    ids.iter().for_each(|id| primary.put(Product { id: id.clone(), ..loaf(1) }));
    for expected in [Outcome::Loaded, Outcome::Hit] {
        for id in &ids {
            assert_eq!(cache.lookup(id.clone(), primary.loader()).await.unwrap().outcome, expected, "{id}");
        }
    }
    let load =
        async |missing: Vec<String>| Err::<Vec<Product>, BoxError>(format!("{missing:?} are loaded again").into());
    for found in cache.get_many(ids.clone(), load).await {
        assert!(found.unwrap().is_some());
    }
    let stored = async || {
        let mut stored = Vec::new();
        for server in servers {
            stored.push(redis::cmd("DBSIZE").query_async::<usize>(&mut server.client().await).await.unwrap());
        }
        stored
    };
    let before = stored().await;
    assert!(before.iter().all(|keys| *keys > 0) && before.iter().sum::<usize>() == ids.len(), "{before:?}");
    for removed in cache.invalidate_many(ids).await {
        assert!(removed.unwrap());
    }
    assert_eq!(stored().await.iter().sum::<usize>(), 0);
}
