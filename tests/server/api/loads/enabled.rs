//! `set_enabled`: a cache that is switched off and on while it is in use.

use std::time::Duration;

use cache_aside::{BoxError, Cache, Outcome};

use super::stock;
use crate::near::{near, warm};
use crate::support::fixture::{
    Primary, Product, builder, get, load_at_gate, loaf, lookup, on_every_backend, on_every_server, products, until,
};

const LIMIT: Duration = Duration::from_secs(20);

async fn found(cache: &Cache<Product>, primary: &Primary) -> (Outcome, u32) {
    let found = lookup(cache, primary.loader()).await.unwrap();
    (found.outcome, found.value.unwrap().stock)
}

#[tokio::test]
async fn gets_go_to_the_loader_until_the_cache_is_enabled_again() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        found(&cache, &primary).await;
        assert_eq!(found(&cache, &primary).await, (Outcome::Hit, 1));
        cache.set_enabled(false);
        for _ in 0..2 {
            assert_eq!(found(&cache, &primary).await, (Outcome::Bypassed, 1));
        }
        let stock_of = |found: Option<u32>| found.unwrap();
        assert_eq!(stock_of(cache.get_fields("p-001", Product::FIELDS.stock, primary.loader()).await.unwrap()), 1);
        let many = |_| async { Ok::<_, BoxError>([loaf(1)]) };
        assert_eq!(cache.lookup_many(["p-001"], many).await.remove(0).unwrap().outcome, Outcome::Bypassed);
        assert_eq!((primary.loads(), cache.stats().bypasses), (4, 4));
        assert_eq!(cache.peek("p-001").await.unwrap(), None);
        cache.set_enabled(true);
        assert_eq!(found(&cache, &primary).await, (Outcome::Hit, 1));
        assert_eq!(primary.loads(), 4);
    })
    .await;
}

#[tokio::test]
async fn clones_and_caches_with_a_loader_are_switched_together() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        let (clone, loading) = (cache.clone(), cache.with_loader(primary.loader()));
        let other = products(&backend);
        found(&cache, &primary).await;
        loading.set_enabled(false);
        for cache in [&cache, &clone, &loading] {
            assert_eq!(found(cache, &primary).await.0, Outcome::Bypassed);
        }
        assert_eq!(loading.lookup("p-001").await.unwrap().outcome, Outcome::Bypassed);
        assert_eq!(found(&other, &primary).await.0, Outcome::Hit, "another cache of the same records");
        clone.set_enabled(true);
        for cache in [&cache, &clone, &loading] {
            assert_eq!(found(cache, &primary).await.0, Outcome::Hit);
        }
    })
    .await;
}

#[tokio::test]
async fn a_cache_that_is_built_disabled_can_be_enabled() {
    on_every_backend(async |backend| {
        let (cache, primary) = (builder(&backend).enabled(false).build().unwrap(), Primary::of(loaf(1)));
        assert_eq!(found(&cache, &primary).await.0, Outcome::Bypassed);
        cache.set_enabled(true);
        assert_eq!(found(&cache, &primary).await.0, Outcome::Loaded, "nothing was stored before");
        assert_eq!(found(&cache, &primary).await.0, Outcome::Hit);
    })
    .await;
}

#[tokio::test]
async fn writes_go_on_while_the_cache_is_disabled() {
    on_every_backend(async |backend| {
        let (cache, other, primary) = (products(&backend), products(&backend), Primary::of(loaf(1)));
        found(&cache, &primary).await;
        cache.set_enabled(false);

        primary.put(loaf(2));
        assert!(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());
        assert_eq!(stock(&other, "p-001").await, Some(2));
        primary.put(loaf(3));
        let modified = cache.modify("p-001", |product| product.stock = 3).await.unwrap();
        assert_eq!(modified.unwrap().stock, 3);
        assert_eq!(stock(&other, "p-001").await, Some(3));
        cache.set_enabled(true);
        assert_eq!(found(&cache, &primary).await, (Outcome::Hit, 3));

        cache.set_enabled(false);
        primary.put(loaf(4));
        assert!(cache.invalidate("p-001").await.unwrap());
        assert_eq!(stock(&other, "p-001").await, None);
        cache.set_enabled(true);
        assert_eq!(found(&cache, &primary).await, (Outcome::Loaded, 4));
    })
    .await;
}

#[tokio::test]
async fn a_refresh_while_the_cache_is_disabled_leaves_nothing_old() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        found(&cache, &primary).await;
        cache.set_enabled(false);
        primary.put(loaf(2));
        assert_eq!(cache.refresh("p-001", primary.loader()).await.unwrap().unwrap().stock, 2);
        cache.set_enabled(true);
        assert_eq!(found(&cache, &primary).await, (Outcome::Loaded, 2));
    })
    .await;
}

/// The load holds its lease all the time, and the invalidation revokes it.
#[tokio::test]
async fn a_load_from_before_stores_nothing_that_was_invalidated_while_the_cache_was_disabled() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        let (gate, load) = load_at_gate(&cache, &primary).await;
        cache.set_enabled(false);
        primary.put(loaf(2));
        cache.invalidate("p-001").await.unwrap();
        cache.set_enabled(true);
        gate.open();
        assert_eq!(load.await.unwrap().unwrap().unwrap().stock, 1);
        assert_eq!(found(&cache, &primary).await, (Outcome::Loaded, 2));
        assert_eq!(cache.stats().fenced_fills, 1);
    })
    .await;
}

#[tokio::test]
async fn a_disabled_cache_has_no_near_hits() {
    on_every_server(async |_, backend| {
        let (cache, primary) = (near(&backend), Primary::of(loaf(1)));
        warm(&cache, &primary).await;
        let (loads, hits) = (primary.loads(), cache.stats().near_hits);
        cache.set_enabled(false);
        assert_eq!(found(&cache, &primary).await, (Outcome::Bypassed, 1));
        assert_eq!(get(&cache, primary.loader()).await.unwrap().unwrap().stock, 1);
        let fields = cache.get_fields("p-001", Product::FIELDS.stock, primary.loader()).await.unwrap();
        assert_eq!(fields, Some(1));
        let many = |_| async { Ok::<_, BoxError>([loaf(1)]) };
        assert_eq!(cache.lookup_many(["p-001"], many).await.remove(0).unwrap().outcome, Outcome::Bypassed);
        assert_eq!((primary.loads() - loads, cache.stats().near_hits - hits), (3, 0));
        cache.set_enabled(true);
        warm(&cache, &primary).await;
        assert_eq!(primary.loads() - loads, 3, "it is still in Redis");
    })
    .await;
}

#[tokio::test]
async fn a_near_cache_serves_nothing_from_before_a_write_while_it_was_disabled() {
    on_every_server(async |_, backend| {
        let (cache, other, primary) = (near(&backend), products(&backend), Primary::of(loaf(1)));
        warm(&cache, &primary).await;
        cache.set_enabled(false);
        primary.put(loaf(2));
        assert!(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());
        cache.set_enabled(true);
        assert_eq!(found(&cache, &primary).await.1, 2, "its own write is seen at once");

        warm(&cache, &primary).await;
        cache.set_enabled(false);
        primary.put(loaf(3));
        cache.invalidate("p-001").await.unwrap();
        cache.set_enabled(true);
        assert_eq!(found(&cache, &primary).await.1, 3);

        warm(&cache, &primary).await;
        cache.set_enabled(false);
        primary.put(loaf(4));
        other.invalidate("p-001").await.unwrap();
        cache.set_enabled(true);
        // Another process' write is seen once its message has come.
        until(LIMIT, "the old record is kept", async || found(&cache, &primary).await.1 == 4).await;
    })
    .await;
}
