//! Writes that could not reach the server: they stay pending, reads go around their entries, and they are applied
//! later.

use std::time::Duration;

use cache_aside::{Cache, EntryState, OnOutage, Outcome};
use testkit::server::{Flavor, Server};

use crate::support::fixture::{
    Primary, Product, builder, connect, frozen_with_an_old_entry, load_at_gate, loaf, lookup, on_every_backend,
    products, remembering, until, until_applied,
};

/// Waits until the old entry is gone, and the cache is used again for the new record.
async fn is_applied(server: &Server, cache: &Cache<Product>, primary: &Primary) {
    const LIMIT: Duration = Duration::from_secs(20);
    until_applied(cache).await;
    // The cache's own deadline is too short for a busy machine.
    let patient = products(&connect(&server.url()).await);
    assert_eq!(patient.inspect("p-001").await.unwrap().state, EntryState::Missing);
    let is_used = async || {
        let found = lookup(cache, primary.loader()).await.unwrap();
        assert_eq!(found.value.unwrap().stock, 2);
        found.outcome == Outcome::Hit
    };
    until(LIMIT, "the cache is not used again", is_used).await;
}

#[tokio::test]
async fn a_failed_write_is_pending_until_it_is_applied() {
    for flavor in Flavor::ALL {
        for write in ["invalidate", "update", "modify", "dropped"] {
            println!("{write} on {flavor:?}");
            let (server, cache, primary) = frozen_with_an_old_entry(flavor).await;
            match write {
                "invalidate" => drop(cache.invalidate("p-001").await.unwrap_err()),
                "update" => drop(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap_err()),
                "modify" => drop(cache.modify("p-001", |product| product.stock = 2).await.unwrap_err()),
                _ => {
                    let hurried = tokio::time::timeout(Duration::from_millis(10), cache.invalidate("p-001"));
                    assert!(hurried.await.is_err(), "the server is frozen");
                }
            }
            let pending = cache.pending();
            assert_eq!(
                (pending.keys.as_slice(), pending.whole_type),
                (&["cache:billing:product:p-001".into()][..], false)
            );
            for _ in 0..3 {
                let found = lookup(&cache, primary.loader()).await.unwrap();
                assert_eq!((found.outcome, found.value.unwrap().stock), (Outcome::Bypassed, 2));
            }
            assert_eq!(cache.peek("p-001").await.unwrap(), None);
            server.thaw();
            is_applied(&server, &cache, &primary).await;
        }
    }
}

#[tokio::test]
async fn after_a_failed_clear_the_whole_type_is_pending_until_it_is_applied() {
    for flavor in Flavor::ALL {
        for dropped in [false, true] {
            println!("{flavor:?}, dropped: {dropped}");
            let (server, cache, primary) = frozen_with_an_old_entry(flavor).await;
            if dropped {
                let hurried = tokio::time::timeout(Duration::from_millis(10), cache.clear());
                assert!(hurried.await.is_err(), "the server is frozen");
            } else {
                let error = cache.clear().await.unwrap_err();
                assert!(error.to_string().contains("sweep cache:billing:product:"), "{error}");
            }
            assert!(cache.pending().whole_type && cache.pending().keys.is_empty(), "{:?}", cache.pending());
            let found = lookup(&cache, primary.loader()).await.unwrap();
            assert_eq!((found.outcome, found.value.unwrap().stock), (Outcome::Bypassed, 2));
            server.thaw();
            is_applied(&server, &cache, &primary).await;
        }
    }
}

#[tokio::test]
async fn clear_applies_what_is_pending() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        cache.get("p-001", primary.loader()).await.unwrap();
        backend.outage(true);
        cache.invalidate("p-001").await.unwrap_err();
        cache.clear().await.unwrap_err();
        assert!(cache.pending().whole_type);
        backend.outage(false);
        cache.clear().await.unwrap();
        assert!(cache.pending().is_empty());
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
    })
    .await;
}

#[tokio::test]
async fn reads_go_around_an_entry_that_could_not_be_invalidated() {
    let server = Server::start(Flavor::Redis70).await;
    let backend = connect(&server.url()).await;
    let cache = remembering(&backend);
    let primary = Primary::of(loaf(1));
    cache.get("p-001", primary.loader()).await.unwrap();
    cache.get("p-002", primary.loader()).await.unwrap();
    // Reads are answered as usual; only deletions are refused.
    let mut operator = server.client().await;
    let _: () = redis::cmd("ACL").arg(&["SETUSER", "default", "-del"]).query_async(&mut operator).await.unwrap();
    primary.put(loaf(2));
    cache.invalidate("p-001").await.unwrap_err();
    for _ in 0..3 {
        let found = lookup(&cache, primary.loader()).await.unwrap();
        assert_eq!((found.outcome, found.value.unwrap().stock), (Outcome::Bypassed, 2));
    }
    assert_eq!(cache.peek("p-001").await.unwrap(), None);
    assert_eq!(cache.lookup("p-002", primary.loader()).await.unwrap().outcome, Outcome::NotFoundHit);
    let failing = builder(&backend).on_outage(OnOutage::Fail).build().unwrap();
    let error = failing.get("p-001", primary.loader()).await.unwrap_err();
    assert!(error.to_string().contains("until it is applied"), "{error}");
    assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Record, "the old one");

    let _: () = redis::cmd("ACL").arg(&["SETUSER", "default", "+@all"]).query_async(&mut operator).await.unwrap();
    until_applied(&cache).await;
    assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
}

#[tokio::test]
async fn a_load_from_before_a_failed_invalidation_is_not_served_after_it() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        let (gate, held) = load_at_gate(&cache, &primary).await;
        primary.put(loaf(2));
        backend.outage(true);
        cache.invalidate("p-001").await.unwrap_err();
        let found = lookup(&cache, primary.loader()).await.unwrap();
        assert_eq!((found.outcome, found.value.unwrap().stock), (Outcome::Bypassed, 2));
        backend.outage(false);
        until_applied(&cache).await;
        gate.open();
        assert_eq!(held.await.unwrap().unwrap().unwrap().stock, 1, "it asked before");
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().value.unwrap().stock, 2);
        assert_eq!(cache.stats().fenced_fills, 1);
    })
    .await;
}

#[tokio::test]
async fn updates_do_not_change_an_entry_whose_invalidation_is_pending() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        cache.get("p-001", primary.loader()).await.unwrap();
        backend.outage(true);
        cache.invalidate("p-001").await.unwrap_err();
        backend.outage(false);
        // Either before the next attempt in the background, or after it.
        assert_eq!(cache.modify("p-001", |product| product.stock += 1).await.unwrap(), None);
        assert!(!cache.update_field("p-001", Product::FIELDS.stock, 9).await.unwrap());
        assert!(cache.pending().is_empty());
        assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Missing);
    })
    .await;
}

/// All keys of a dropped call are remembered, including those that were not sent yet.
#[tokio::test]
async fn all_keys_of_a_dropped_invalidate_many_are_pending_and_applied_later() {
    const KEYS: usize = 1_000;
    let (server, cache, primary) = frozen_with_an_old_entry(Flavor::Redis70).await;
    let ids = || (0..KEYS).map(|number| format!("p-{number:03}"));
    let hurried = tokio::time::timeout(Duration::from_millis(10), cache.invalidate_many(ids())).await;
    assert!(hurried.is_err(), "the server is frozen");
    assert_eq!(cache.pending().keys.len(), KEYS);
    server.thaw();
    until_applied(&cache).await;
    assert_eq!(lookup(&cache, primary.loader()).await.unwrap().value.unwrap().stock, 2);
}
