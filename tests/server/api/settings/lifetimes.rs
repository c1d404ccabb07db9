//! How long entries live: `ttl`, `ttl_by`, `not_found_ttl`, `jitter`.

use std::time::Duration;

use cache_aside::{Cache, EntryState, Outcome, UpdateTtl};

use super::{Item, backend, item, no_item};
use crate::support::fixture::{Primary, Product, builder, loaf, on_every_backend};

#[tokio::test(start_paused = true)]
async fn entries_expire_on_the_paused_clock() {
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

#[tokio::test(start_paused = true)]
async fn a_short_ttl_shortens_the_default_not_found_ttl() {
    let cache: Cache<Item> = Cache::builder(backend().await).ttl(Duration::from_secs(1)).jitter(0.0).build().unwrap();
    cache.get(1, no_item).await.unwrap();
    assert_eq!(cache.ttl(1).await.unwrap(), Some(Duration::from_millis(500)));
}

#[tokio::test(start_paused = true)]
async fn jitter_shortens_a_ttl_by_up_to_its_fraction() {
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

#[tokio::test]
async fn without_not_found_ttl_missing_records_are_not_stored() {
    on_every_backend(async |backend| {
        let (cache, primary) = (builder(&backend).not_found_ttl(None).build().unwrap(), Primary::default());
        for loads in 1..=3 {
            assert_eq!(cache.get("p-001", primary.loader()).await.unwrap(), None);
            assert_eq!(primary.loads(), loads);
        }
        let inspection = cache.inspect("p-001").await.unwrap();
        assert_eq!((inspection.state, inspection.lock_ttl), (EntryState::Missing, None));
    })
    .await;
}

#[tokio::test]
async fn ttl_by_gives_each_record_its_own_ttl() {
    on_every_backend(async |backend| {
        let by_stock = |product: &Product| Duration::from_secs(u64::from(product.stock));
        let cache = builder(&backend).ttl_by(by_stock).jitter(0.0).update_ttl(UpdateTtl::Refresh).build().unwrap();
        let primary = Primary::of(loaf(0));
        cache.get("p-001", primary.loader()).await.unwrap();
        assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Missing, "no lifetime, not stored");
        primary.put(loaf(1000));
        cache.get("p-001", primary.loader()).await.unwrap();
        assert!(cache.ttl("p-001").await.unwrap().unwrap() > Duration::from_secs(900));
        assert!(cache.update_field("p-001", Product::FIELDS.stock, 100).await.unwrap());
        let ttl = cache.ttl("p-001").await.unwrap().unwrap();
        assert!(ttl <= Duration::from_secs(100) && ttl > Duration::from_secs(90), "{ttl:?}");
    })
    .await;
}
