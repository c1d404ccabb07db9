//! The settings of a cache and of a backend: what is refused, and what they do under a paused clock.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cache_aside::{Backend, BoxError, Cache, CacheBuilder, Cacheable, Error, NearCache, Outcome, defaults};

#[derive(Debug, Clone, PartialEq, Cacheable)]
#[cacheable(ttl = "30s", not_found_ttl = "2s")]
struct Item {
    #[cacheable(id)]
    id: u64,
}

#[derive(Debug, Clone, PartialEq, Cacheable)]
struct Plain {
    #[cacheable(id)]
    id: u64,
}

async fn item(id: u64) -> Result<Option<Item>, BoxError> {
    Ok(Some(Item { id }))
}

async fn no_item(_id: u64) -> Result<Option<Item>, BoxError> {
    Ok(None)
}

async fn backend() -> Backend {
    Backend::connect("memory://").await.unwrap()
}

async fn refused(setting: &str, set: impl FnOnce(CacheBuilder<Item>) -> CacheBuilder<Item>) {
    let error = set(Cache::builder(backend().await)).build().unwrap_err();
    assert!(matches!(error, Error::Config { .. }), "{error:?}");
    assert!(error.to_string().contains(setting), "{error}");
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused() {
    let (zero, ms, year) = (Duration::ZERO, Duration::from_millis(1), Duration::from_secs(365 * 24 * 60 * 60));
    refused("ttl", |cache| cache.ttl(zero)).await;
    refused("ttl", |cache| cache.ttl(year * 101)).await;
    refused("ttl", |cache| cache.ttl(Duration::MAX)).await;
    refused("not_found_ttl", |cache| cache.not_found_ttl(zero)).await;
    refused("not_found_ttl", |cache| cache.not_found_ttl(Duration::from_secs(30))).await;
    refused("not_found_ttl", |cache| cache.ttl(ms * 10).not_found_ttl(ms * 10)).await;
    refused("stale_if_error", |cache| cache.stale_if_error(zero)).await;
    refused("stale_if_error", |cache| cache.stale_if_error(Duration::MAX)).await;
    refused("stale_retry", |cache| cache.stale_retry(zero)).await;
    for beta in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        refused("refresh_ahead", |cache| cache.refresh_ahead(beta)).await;
    }
    refused("entries", |cache| cache.near_cache(NearCache::entries(0))).await;
    refused("max_bytes", |cache| cache.near_cache(NearCache::entries(10).max_bytes(9))).await;
    for max_age in [zero, ms * 10] {
        refused("max_age", |cache| cache.near_cache(NearCache::entries(10).max_age(max_age))).await;
    }
    refused("lock_ttl", |cache| cache.lock_ttl(Duration::from_nanos(1))).await;
    refused("load_timeout", |cache| cache.load_timeout(zero)).await;
    refused("wait_poll", |cache| cache.wait_poll(zero)).await;
    refused("wait_poll", |cache| cache.wait_timeout(ms)).await;
    refused("wait_timeout", |cache| cache.wait_timeout(Duration::MAX)).await;
    refused("update_timeout", |cache| cache.update_timeout(zero)).await;
    refused("max_entry_bytes", |cache| cache.max_entry_bytes(0)).await;
    for jitter in [-0.1, 1.0, f64::NAN, f64::INFINITY] {
        refused("jitter", |cache| cache.jitter(jitter)).await;
    }
    for namespace in ["", "Billing", "a:b", "a b", "ä", "{}"] {
        refused("namespace", |cache| cache.namespace(namespace)).await;
    }
    for builder in [
        Backend::builder("memory://").max_entries(0),
        Backend::builder("memory://").operation_timeout(zero),
        Backend::builder("memory://").heartbeat_interval(ms * 10),
        Backend::builder("memory://").heartbeat_timeout(ms * 10),
        Backend::builder("memory://").connect_timeout(Duration::MAX),
        Backend::builder("memory://").update_connections(0),
    ] {
        assert!(matches!(builder.connect().await, Err(Error::Config { .. })));
    }
}

#[tokio::test]
async fn every_setting_at_its_default_is_right() {
    Cache::<Plain>::builder(backend().await)
        .ttl(defaults::TTL)
        .not_found_ttl(defaults::NOT_FOUND_TTL)
        .jitter(defaults::JITTER)
        .stale_if_error(None)
        .stale_retry(defaults::STALE_RETRY)
        .refresh_ahead(defaults::REFRESH_AHEAD)
        .lock_ttl(defaults::LOCK_TTL)
        .load_timeout(defaults::LOAD_TIMEOUT)
        .wait_poll(defaults::WAIT_POLL)
        .wait_timeout(defaults::WAIT_TIMEOUT)
        .update_timeout(defaults::UPDATE_TIMEOUT)
        .max_entry_bytes(defaults::MAX_ENTRY_BYTES)
        .enabled(true)
        .build()
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_short_ttl_shortens_the_default_for_missing_records() {
    let cache: Cache<Item> = Cache::builder(backend().await).ttl(Duration::from_secs(1)).jitter(0.0).build().unwrap();
    cache.get(1, no_item).await.unwrap();
    assert_eq!(cache.ttl(1).await.unwrap(), Some(Duration::from_millis(500)));
}

#[tokio::test(start_paused = true)]
async fn entries_end_with_the_paused_clock() {
    let cache: Cache<Item> = Cache::builder(backend().await).jitter(0.0).build().unwrap();
    cache.get(1, item).await.unwrap();
    cache.get(2, no_item).await.unwrap();
    assert_eq!(cache.ttl(1).await.unwrap(), Some(Duration::from_secs(30)));
    assert_eq!(cache.ttl(2).await.unwrap(), Some(Duration::from_secs(2)));
    tokio::time::advance(Duration::from_millis(1999)).await;
    assert_eq!(cache.lookup(2, no_item).await.unwrap().outcome, Outcome::NotFoundHit);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(cache.lookup(2, no_item).await.unwrap().outcome, Outcome::Loaded);
    tokio::time::advance(Duration::from_millis(27_999)).await;
    assert_eq!(cache.lookup(1, item).await.unwrap().outcome, Outcome::Hit);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(cache.lookup(1, item).await.unwrap().outcome, Outcome::Loaded);
}

#[derive(Debug, Clone, PartialEq, Cacheable)]
#[cacheable(ttl = "30s", stale_if_error = "10s", stale_retry = "2s", refresh_ahead = 1e-9)]
struct Tolerant {
    #[cacheable(id)]
    id: u64,
}

async fn no_primary(_id: u64) -> Result<Option<Tolerant>, BoxError> {
    Err("the primary is down".into())
}

#[tokio::test(start_paused = true)]
async fn stale_records_grow_old_with_the_paused_clock() {
    let backend = backend().await;
    let cache: Cache<Tolerant> = Cache::builder(backend.clone()).jitter(0.0).build().unwrap();
    let ms = Duration::from_millis;
    cache.get(1, |id| async move { Ok::<_, BoxError>(Some(Tolerant { id })) }).await.unwrap();
    tokio::time::advance(ms(29_999)).await;
    assert_eq!(cache.lookup(1, no_primary).await.unwrap().outcome, Outcome::Hit);
    for (later, age, loads) in [(1, 0, 2), (1999, 1999, 2), (1, 2000, 3)] {
        tokio::time::advance(ms(later)).await;
        assert_eq!(cache.lookup(1, no_primary).await.unwrap().outcome, Outcome::Stale { age: ms(age) });
        assert_eq!(cache.stats().loads, loads);
    }
    tokio::time::advance(ms(7999)).await;
    assert_eq!(cache.lookup(1, no_primary).await.unwrap().outcome, Outcome::Stale { age: ms(9999) });
    tokio::time::advance(ms(1)).await;
    assert!(matches!(cache.lookup(1, no_primary).await, Err(Error::Load { .. })));

    let strict: Cache<Tolerant> = Cache::builder(backend).stale_if_error(None).refresh_ahead(None).build().unwrap();
    strict.get(1, |id| async move { Ok::<_, BoxError>(Some(Tolerant { id })) }).await.unwrap();
    assert_eq!(strict.inspect(1).await.unwrap().fields.len(), 1, "nothing is noted beside the id");
}

#[tokio::test(start_paused = true)]
async fn jitter_shortens_a_lifetime_by_up_to_its_part() {
    let cache: Cache<Item> = Cache::builder(backend().await).jitter(0.5).build().unwrap();
    let mut ttls = Vec::new();
    for id in 0..200 {
        cache.get(id, item).await.unwrap();
        ttls.push(cache.ttl(id).await.unwrap().unwrap());
    }
    let (shortest, longest) = (*ttls.iter().min().unwrap(), *ttls.iter().max().unwrap());
    assert!(shortest >= Duration::from_secs(15) && longest <= Duration::from_secs(30));
    assert!(shortest < Duration::from_secs(18) && longest > Duration::from_secs(27), "{shortest:?} to {longest:?}");
}

#[tokio::test(start_paused = true)]
async fn the_load_timeout_runs_on_the_paused_clock() {
    let cache: Cache<Item> = Cache::new(backend().await);
    let began = tokio::time::Instant::now();
    let error = cache.get(1, |_| std::future::pending::<Result<Option<Item>, BoxError>>()).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { limit: defaults::LOAD_TIMEOUT, .. }), "{error:?}");
    assert!(began.elapsed() >= defaults::LOAD_TIMEOUT && began.elapsed() < defaults::LOAD_TIMEOUT * 2);
}

#[tokio::test]
async fn the_least_recently_read_entries_go_first() {
    let backend = Backend::builder("memory://").max_entries(3).connect().await.unwrap();
    let cache: Cache<Item> = Cache::new(backend);
    for id in [1, 2, 3, 1, 4] {
        cache.get(id, item).await.unwrap();
    }
    let mut kept = Vec::new();
    for id in 1..=4 {
        kept.push(cache.peek(id).await.unwrap().is_some());
    }
    assert_eq!(kept, [true, false, true, true]);
}

#[tokio::test]
async fn each_memory_backend_is_a_store_of_its_own_and_clones_share_it() {
    let (one, other) = (backend().await, backend().await);
    Cache::<Item>::new(one.clone()).get(1, item).await.unwrap();
    assert!(Cache::<Item>::new(one.clone()).peek(1).await.unwrap().is_some());
    assert!(Cache::<Item>::new(other).peek(1).await.unwrap().is_none());
}

#[tokio::test]
async fn a_cache_and_its_clones_share_their_statistics() {
    let cache: Cache<Item> = Cache::new(backend().await);
    let loads = Arc::new(AtomicU32::new(0));
    for cache in [cache.clone(), cache.clone()] {
        let loads = loads.clone();
        let load = move |id| async move {
            loads.fetch_add(1, Ordering::Relaxed);
            item(id).await
        };
        cache.get(1, load).await.unwrap();
    }
    assert_eq!(loads.load(Ordering::Relaxed), 1);
    assert_eq!((cache.stats().hits, cache.stats().misses), (1, 1));
}
