//! `build` refuses values out of range, and accepts the defaults.

use std::time::Duration;

use cache_aside::{Backend, Cache, CacheBuilder, Cacheable, Error, NearCache, defaults};

use super::{Item, backend};

async fn refused(setting: &str, set: impl FnOnce(CacheBuilder<Item>) -> CacheBuilder<Item>) {
    let error = set(Cache::builder(backend().await)).build().unwrap_err();
    assert!(matches!(error, Error::Config { .. }), "{error:?}");
    assert!(error.to_string().contains(setting), "{error}");
}

#[tokio::test]
async fn settings_out_of_range_are_refused() {
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
    refused("wait_timeout", |cache| cache.load_timeout(ms * 100).wait_timeout(ms * 99)).await;
    refused("stale_while_revalidate", |cache| cache.stale_while_revalidate(zero)).await;
    refused("soft_timeout", |cache| cache.soft_timeout(Duration::from_nanos(1))).await;
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
    for name in ["", " ", "a b", "a\nb", "a\u{7f}", "ä"] {
        let error = Backend::builder("redis://127.0.0.1").client_name(name).connect_lazy().unwrap_err();
        assert!(matches!(&error, Error::Config { mistake, .. } if mistake.contains("client_name is")), "{error:?}");
    }
}

#[derive(Debug, Clone, PartialEq, Cacheable)]
struct Plain {
    #[cacheable(id)]
    id: u64,
}

#[tokio::test]
async fn every_setting_accepts_its_default() {
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
