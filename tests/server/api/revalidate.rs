//! `stale_while_revalidate` and `soft_timeout`: a record past its TTL is served while it is loaded anew; never after an
//! invalidation.

use std::time::{Duration, Instant};

use cache_aside::proof::{Phase, Step};
use cache_aside::{Backend, Cache, CacheBuilder, Outcome};
use futures_util::future::join_all;

use crate::support::fixture::{
    Found, Gate, Primary, Product, builder, get, load_at_gate, loaf, lookup, on_every_backend, products, settle, until,
};
use crate::support::process::Process;

const TTL: Duration = Duration::from_millis(100);
const WINDOW: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(20);

fn revalidating(backend: &Backend) -> Cache<Product> {
    with_window(builder(backend)).build().unwrap()
}

fn with_window(cache: CacheBuilder<Product>) -> CacheBuilder<Product> {
    cache.ttl(TTL).not_found_ttl(None).jitter(0.0).stale_while_revalidate(WINDOW)
}

/// Loads the product with stock 1, waits until its TTL is over, and raises the primary's stock to 2.
async fn grown_stale(cache: &Cache<Product>) -> Primary {
    let primary = Primary::of(loaf(1));
    get(cache, primary.loader()).await.unwrap();
    while cache.ttl("p-001").await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    primary.put(loaf(2));
    primary
}

/// Whether the old record is served while it is loaded anew.
async fn is_served(cache: &Cache<Product>, loader: impl Fn(String) -> Found + Send + Sync + 'static) -> bool {
    let found = lookup(cache, loader).await.unwrap();
    match found.outcome {
        Outcome::Stale { revalidating: true, .. } => {
            assert_eq!(found.value.as_deref(), Some(&loaf(1)));
            true
        }
        _ => false,
    }
}

/// Serves the old record while its load is held at the gate.
async fn is_served_while_loading(cache: &Cache<Product>, primary: &Primary) -> Gate {
    let gate = Gate::closed();
    assert!(is_served(cache, primary.gated(&gate)).await);
    gate.arrival().await;
    gate
}

fn unreachable() -> impl Fn(String) -> Found + Clone + Send + Sync + 'static {
    |_| Box::pin(async { panic!("this load is not needed") })
}

#[tokio::test]
async fn a_stale_record_is_served_until_its_load_has_ended() {
    on_every_backend(async |backend| {
        let cache = revalidating(&backend);
        let primary = grown_stale(&cache).await;
        let gate = is_served_while_loading(&cache, &primary).await;
        for _ in 0..10 {
            assert!(is_served(&cache, unreachable()).await);
        }
        assert!(is_served(&revalidating(&backend), unreachable()).await, "in another process too");
        gate.open();
        let is_new = async || get(&cache, unreachable()).await.unwrap().unwrap().stock == 2;
        until(LIMIT, "the load has ended, but its record is not served", is_new).await;
        assert_eq!(primary.loads(), 2);
        let stats = cache.stats();
        assert!(stats.stale_revalidating >= 11 && stats.stale_served == stats.stale_revalidating, "{stats:?}");
        assert_eq!(stats.load_errors, 0);
    })
    .await;
}

#[tokio::test]
async fn a_get_waits_for_the_load_for_the_soft_timeout() {
    on_every_backend(async |backend| {
        let cache = with_window(builder(&backend)).soft_timeout(LIMIT).build().unwrap();
        let primary = grown_stale(&cache).await;
        let (first, second) = tokio::join!(lookup(&cache, primary.loader()), lookup(&cache, primary.loader()));
        for found in [first.unwrap(), second.unwrap()] {
            assert_eq!(found.value.as_deref(), Some(&loaf(2)), "{:?}", found.outcome);
        }
        assert_eq!(primary.loads(), 2);
        let soft_timeout = Duration::from_millis(50);
        let hasty = with_window(builder(&backend)).soft_timeout(soft_timeout).build().unwrap();
        hasty.invalidate("p-001").await.unwrap();
        let (primary, gate, began) = (grown_stale(&hasty).await, Gate::closed(), Instant::now());
        assert!(is_served(&hasty, primary.gated(&gate)).await);
        assert!(began.elapsed() >= soft_timeout);
        gate.open();
    })
    .await;
}

#[tokio::test]
async fn after_an_invalidation_nobody_is_served_the_old_record() {
    on_every_backend(async |backend| {
        let (cache, other) = (revalidating(&backend), revalidating(&backend));
        let primary = grown_stale(&cache).await;
        let gate = is_served_while_loading(&cache, &primary).await;
        primary.put(loaf(3));
        other.invalidate("p-001").await.unwrap();
        for cache in [&cache, &other] {
            let found = lookup(cache, primary.loader());
            let found = tokio::spawn(found);
            settle().await;
            gate.open();
            let found = found.await.unwrap().unwrap();
            assert_eq!(found.value.as_deref(), Some(&loaf(3)), "{:?}", found.outcome);
        }
        assert_eq!(cache.stats().fenced_fills, 1);
    })
    .await;
}

#[tokio::test]
async fn a_record_that_became_pending_meanwhile_is_not_served() {
    on_every_backend(async |backend| {
        let process = Process::of(&backend, None, |cache| with_window(cache).soft_timeout(LIMIT));
        let cache = &process.cache;
        let primary = grown_stale(cache).await;
        // The get has read the stale record. Its flight fails, and so does an invalidation.
        let acquire = process.hold(Step::Acquire, Phase::Before);
        let got = tokio::spawn(lookup(cache, primary.loader()));
        acquire.arrival().await;
        let invalidate = process.hold(Step::Invalidate, Phase::Before);
        let invalidation = tokio::spawn(cache.invalidate("p-001"));
        invalidate.arrival().await;
        invalidation.abort();
        let _ = invalidation.await;
        let is_pending = async || !cache.pending().is_empty() || cache.peek("p-001").await.unwrap().is_none();
        until(LIMIT, "it is neither pending nor applied", is_pending).await;
        invalidate.open();
        acquire.open();
        let found = got.await.unwrap().unwrap();
        assert_eq!(found.value.as_deref(), Some(&loaf(2)), "{:?}", found.outcome);
    })
    .await;
}

#[tokio::test]
async fn a_load_that_fails_is_not_retried_at_once_and_the_record_is_served_on() {
    on_every_backend(async |backend| {
        let cache = with_window(builder(&backend)).stale_retry(LIMIT).build().unwrap();
        let primary = grown_stale(&cache).await;
        primary.down(true);
        assert!(is_served(&cache, primary.loader()).await);
        until(LIMIT, "the load has not failed", async || cache.stats().load_errors == 1).await;
        settle().await;
        let other = revalidating(&backend);
        // While nobody is to load, nothing is under way, as another process finds out by its first get.
        for cache in [&cache, &other] {
            let is_paused = async || {
                let found = lookup(cache, unreachable()).await.unwrap();
                assert_eq!(found.value.as_deref(), Some(&loaf(1)));
                matches!(found.outcome, Outcome::Stale { revalidating: false, .. })
            };
            until(LIMIT, "a load is said to be under way", is_paused).await;
        }
        assert_eq!((primary.loads(), cache.stats().loads, other.stats().loads), (2, 2, 0));
        cache.invalidate("p-001").await.unwrap();
        primary.down(false);
        assert_eq!(get(&cache, primary.loader()).await.unwrap().as_deref(), Some(&loaf(2)));
    })
    .await;
}

#[tokio::test]
async fn each_cache_serves_within_its_own_window() {
    on_every_backend(async |backend| {
        let cache = revalidating(&backend);
        let primary = grown_stale(&cache).await;
        tokio::time::sleep(TTL).await;
        let narrow = with_window(builder(&backend)).stale_while_revalidate(Duration::from_millis(1)).build().unwrap();
        let none = products(&backend);
        let tolerant = builder(&backend).stale_if_error(WINDOW).build().unwrap();
        primary.down(true);
        let mut succeeded = Vec::new();
        for other in [&narrow, &none, &tolerant] {
            succeeded.push(get(other, primary.loader()).await.is_ok());
            assert_eq!(other.stats().loads, 1);
        }
        assert_eq!(succeeded, [false, false, true], "the last tolerates failures");
        assert_eq!(tolerant.stats().stale_served, 1);
        assert_eq!(tolerant.stats().stale_revalidating, 0);
    })
    .await;
}

#[tokio::test]
async fn the_load_behind_a_stale_record_never_goes_around_the_cache() {
    on_every_backend(async |backend| {
        let cache = with_window(builder(&backend)).wait_timeout(TTL).build().unwrap();
        let primary = grown_stale(&cache).await;
        // Another process loads, and takes longer than this one waits.
        let slow = products(&backend);
        let (gate, loading) = load_at_gate(&slow, &primary).await;
        assert!(is_served(&cache, unreachable()).await);
        tokio::time::sleep(TTL * 3).await;
        assert!(is_served(&cache, unreachable()).await);
        assert_eq!((cache.stats().loads, cache.stats().bypasses), (1, 0));
        gate.open();
        loading.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_get_without_a_stale_record_loads_when_the_flight_that_it_joined_gives_up() {
    on_every_backend(async |backend| {
        let process = Process::of(&backend, None, |cache| with_window(cache).wait_timeout(TTL * 5));
        let cache = &process.cache;
        let primary = grown_stale(cache).await;
        let slow = products(&backend);
        let (gate, loading) = load_at_gate(&slow, &primary).await;
        let refused = process.hold(Step::Acquire, Phase::After);
        assert!(is_served(cache, primary.loader()).await);
        refused.arrival().await;
        // Its next attempt is held, so that the second load gets the lease.
        let acquire = process.hold(Step::Acquire, Phase::Before);
        refused.open();
        // The entry goes, but not the lease, as when the entry's tail ends.
        let read = process.hold(Step::Read, Phase::Before);
        let got = tokio::spawn(lookup(cache, primary.loader()));
        read.arrival().await;
        slow.invalidate("p-001").await.unwrap();
        let (second_gate, second) = load_at_gate(&slow, &primary).await;
        read.open();
        settle().await;
        acquire.open();
        let found = got.await.unwrap().unwrap();
        assert_eq!((found.outcome, found.value.as_deref()), (Outcome::Bypassed, Some(&loaf(2))));
        gate.open();
        second_gate.open();
        loading.await.unwrap().unwrap();
        second.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test]
async fn many_gets_and_gets_of_fields_are_served_it_too() {
    on_every_backend(async |backend| {
        let cache = revalidating(&backend);
        let primary = grown_stale(&cache).await;
        let gate = is_served_while_loading(&cache, &primary).await;
        let stock = cache.get_fields("p-001", Product::FIELDS.stock, unreachable()).await.unwrap();
        assert_eq!(stock, Some(1));
        let load = |_| async { Ok::<Vec<Product>, cache_aside::BoxError>(Vec::new()) };
        let found = cache.lookup_many(["p-001"], load).await.remove(0).unwrap();
        assert!(matches!(found.outcome, Outcome::Stale { revalidating: true, .. }), "{:?}", found.outcome);
        assert_eq!(found.value.as_deref(), Some(&loaf(1)));
        gate.open();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_with_many_callers_make_one_load_and_wait_for_none() {
    const CALLERS: usize = 64;
    let soft_timeout = Duration::from_millis(20);
    on_every_backend(async |backend| {
        let cache = || with_window(builder(&backend)).soft_timeout(soft_timeout).build().unwrap();
        let caches: Vec<_> = (0..4).map(|_| cache()).collect();
        let primary = grown_stale(&caches[0]).await;
        let gate = Gate::closed();
        let timed = |cache: &Cache<Product>| {
            let lookup = lookup(cache, primary.gated(&gate));
            tokio::spawn(async move {
                let began = Instant::now();
                (lookup.await.unwrap().outcome, began.elapsed())
            })
        };
        // The primary hangs, and so would they.
        let gets = join_all(caches.iter().flat_map(|cache| (0..CALLERS).map(|_| timed(cache))));
        let mut durations = Vec::new();
        for got in tokio::time::timeout(LIMIT, gets).await.expect("they wait for the load") {
            let (outcome, took) = got.unwrap();
            assert!(matches!(outcome, Outcome::Stale { revalidating: true, .. }), "{outcome:?}");
            durations.push(took);
        }
        durations.sort_unstable();
        println!("p50 {:?}, p99 {:?}", durations[durations.len() / 2], durations[durations.len() * 99 / 100]);
        gate.arrival().await;
        settle().await;
        assert_eq!(primary.loads(), 2);
        gate.open();
    })
    .await;
}
