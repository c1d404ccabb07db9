//! What is stored, and under which key: `enabled`, `namespace`, `max_entry_bytes`, `max_entries`.

use cache_aside::{Backend, Cache, EntryState, Outcome};

use super::{Item, item};
use crate::support::fixture::{Primary, Product, builder, loaf, on_every_backend, products};

#[tokio::test]
async fn a_disabled_cache_goes_to_the_loader_and_still_invalidates() {
    on_every_backend(async |backend| {
        let (enabled, primary) = (products(&backend), Primary::of(loaf(42)));
        let disabled = builder(&backend).enabled(false).build().unwrap();
        enabled.get("p-001", primary.loader()).await.unwrap();
        for _ in 0..2 {
            let lookup = disabled.lookup("p-001", primary.loader()).await.unwrap();
            assert_eq!((lookup.outcome, lookup.value.as_deref()), (Outcome::Bypassed, Some(&loaf(42))));
        }
        assert_eq!((primary.loads(), disabled.stats().bypasses), (3, 2));
        assert_eq!(disabled.peek("p-001").await.unwrap(), None);
        assert!(disabled.invalidate("p-001").await.unwrap());
        assert_eq!(enabled.peek("p-001").await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn namespaces_share_no_entries() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(42)));
        let other = builder(&backend).namespace("shipping").build().unwrap();
        cache.get("p-001", primary.loader()).await.unwrap();
        assert_eq!(other.peek("p-001").await.unwrap(), None);
        assert_eq!(other.inspect("p-001").await.unwrap().key, "cache:shipping:product:p-001");
        assert!(!other.invalidate("p-001").await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn a_record_over_max_entry_bytes_is_returned_and_not_stored() {
    on_every_backend(async |backend| {
        let cache = builder(&backend).max_entry_bytes(200).build().unwrap();
        let large = Product { note: Some("x".repeat(200)), ..loaf(1) };
        let primary = Primary::of(large.clone());
        assert_eq!(cache.get("p-001", primary.loader()).await.unwrap().as_deref(), Some(&large));
        let inspection = cache.inspect("p-001").await.unwrap();
        assert_eq!((inspection.state, inspection.lock_ttl), (EntryState::Missing, None));

        primary.put(loaf(1));
        cache.get("p-001", primary.loader()).await.unwrap();
        assert!(!cache.update_field("p-001", Product::FIELDS.note, large.note).await.unwrap());
        assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Missing);
    })
    .await;
}

#[tokio::test]
async fn max_entries_evicts_the_least_recently_read_entries_first() {
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
