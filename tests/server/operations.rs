//! Each operation, as its documentation has it.

use std::time::Duration;

use cache_aside::{Backend, BoxError, Cache, Cacheable, EntryState, Outcome, UpdateTtl};

use crate::fixture::{Primary, Product, builder, loaf, on_every_backend, on_every_server, products};

#[tokio::test]
async fn reads_through_and_then_hits() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(42)));
        let cold = cache.lookup("p-001", primary.loader()).await.unwrap();
        assert_eq!((cold.outcome, cold.value.as_deref()), (Outcome::Loaded, Some(&loaf(42))));
        let warm = cache.lookup("p-001", primary.loader()).await.unwrap();
        assert_eq!((warm.outcome, warm.value.as_deref()), (Outcome::Hit, Some(&loaf(42))));
        assert_eq!(cache.get("p-001", primary.loader()).await.unwrap().as_deref(), Some(&loaf(42)));
        assert_eq!(primary.loads(), 1);
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.misses, stats.loads), (2, 1, 1));
        assert!((stats.hit_rate_pct() - 66.66).abs() < 0.1);
        cache.reset_stats();
        assert_eq!(cache.stats(), cache_aside::Stats::default());
        assert_eq!(cache.stats().hit_rate_pct().to_bits(), 0.0_f64.to_bits());
    })
    .await;
}

#[tokio::test]
async fn remembers_that_a_record_does_not_exist() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::default());
        let first = cache.lookup("p-001", primary.loader()).await.unwrap();
        assert_eq!((first.outcome, first.value), (Outcome::Loaded, None));
        let second = cache.lookup("p-001", primary.loader()).await.unwrap();
        assert_eq!((second.outcome, second.value), (Outcome::NotFoundHit, None));
        assert_eq!(cache.peek("p-001").await.unwrap(), None);
        assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::NotFound);
        assert!(cache.ttl("p-001").await.unwrap().unwrap() <= Duration::from_secs(2));

        primary.put(loaf(1));
        assert!(cache.invalidate("p-001").await.unwrap(), "a not-found entry was there");
        assert_eq!(cache.get("p-001", primary.loader()).await.unwrap().as_deref(), Some(&loaf(1)));
        assert_eq!(cache.stats().not_found_hits, 1);
    })
    .await;
}

#[tokio::test]
async fn forgets_missing_records_at_once_when_told_to() {
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
async fn peeks_without_loading() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(42)));
        assert_eq!(cache.peek("p-001").await.unwrap(), None);
        cache.get("p-001", primary.loader()).await.unwrap();
        assert_eq!(cache.peek("p-001").await.unwrap().as_deref(), Some(&loaf(42)));
        assert_eq!(cache.stats().hits, 0);
    })
    .await;
}

#[tokio::test]
async fn refreshes_by_loading_anew() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(42)));
        cache.get("p-001", primary.loader()).await.unwrap();
        primary.put(loaf(7));
        assert_eq!(cache.refresh("p-001", primary.loader()).await.unwrap().as_deref(), Some(&loaf(7)));
        assert_eq!(cache.peek("p-001").await.unwrap().as_deref(), Some(&loaf(7)));
        assert_eq!(primary.loads(), 2);
    })
    .await;
}

#[tokio::test]
async fn invalidates_many_in_order() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(42)));
        cache.get("p-001", primary.loader()).await.unwrap();
        let results = cache.invalidate_many(["p-000", "", "p-001", "p-001"]).await;
        assert!(matches!(results[..], [Ok(false), Err(cache_aside::Error::InvalidId { .. }), Ok(true), Ok(false)]));
        let ids: Vec<String> = (0..1000).map(|id| format!("p-{id}")).collect();
        assert_eq!(cache.invalidate_many(&ids).await.len(), 1000);
        assert_eq!(cache.stats().invalidations, 1003);
    })
    .await;
}

#[tokio::test]
async fn shows_what_is_stored() {
    on_every_backend(async |backend| {
        let (cache, primary) = (builder(&backend).jitter(0.0).build().unwrap(), Primary::of(loaf(42)));
        let nothing = cache.inspect("p-001").await.unwrap();
        assert_eq!((nothing.state, nothing.fields.len(), nothing.ttl), (EntryState::Missing, 0, None));
        assert_eq!(cache.ttl("p-001").await.unwrap(), None);
        cache.get("p-001", primary.loader()).await.unwrap();
        let inspection = cache.inspect("p-001").await.unwrap();
        assert_eq!(inspection.key, "cache:billing:product:p-001");
        assert_eq!((inspection.state, inspection.lock_ttl), (EntryState::Record, None));
        let ttl = inspection.ttl.unwrap();
        assert!(ttl <= Duration::from_secs(30) && ttl > Duration::from_secs(25), "{ttl:?}");
        let mut fields = inspection.fields;
        fields.sort();
        let expected = [("id", "p-001"), ("name", "Sourdough Loaf"), ("price_cents", "650"), ("stock", "42")];
        assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())));
    })
    .await;
}

#[tokio::test]
async fn binds_a_loader_once() {
    on_every_backend(async |backend| {
        let primary = Primary::of(loaf(42));
        let cache = products(&backend).with_loader(primary.loader());
        assert_eq!(cache.lookup("p-001").await.unwrap().outcome, Outcome::Loaded);
        assert_eq!(cache.get("p-001").await.unwrap().as_deref(), Some(&loaf(42)));
        assert!(cache.update_field("p-001", Product::FIELDS.stock, 41).await.unwrap());
        assert_eq!(cache.clone().get("p-001").await.unwrap().as_deref(), Some(&loaf(41)));
        assert_eq!(cache.refresh("p-001").await.unwrap().as_deref(), Some(&loaf(42)));
        assert_eq!(primary.loads(), 2);
    })
    .await;
}

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
async fn a_lifetime_can_depend_on_the_record() {
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

#[tokio::test]
async fn a_record_that_is_too_large_is_returned_and_not_stored() {
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

#[derive(Debug, Clone, PartialEq, Cacheable)]
struct Sparse {
    #[cacheable(id)]
    tenant: String,
    #[cacheable(id)]
    number: u64,
    a: Option<u8>,
    b: Option<String>,
}

#[tokio::test]
async fn a_record_of_nothing_but_its_id_comes_back() {
    on_every_backend(async |backend| {
        let cache: Cache<Sparse> = Cache::new(backend);
        let load =
            |(tenant, number)| async move { Ok::<_, BoxError>(Some(Sparse { tenant, number, a: None, b: None })) };
        let loaded = cache.lookup(("acme", 7), load).await.unwrap();
        let hit = cache.lookup(&("acme".to_owned(), 7), load).await.unwrap();
        assert_eq!((loaded.outcome, hit.outcome, &loaded.value), (Outcome::Loaded, Outcome::Hit, &hit.value));
        assert_eq!(cache.inspect(("acme", 7)).await.unwrap().key, "cache:sparse:acme/7");
        assert!(cache.update_fields(("acme", 7), [Sparse::FIELDS.b.set(Some(String::new()))]).await.unwrap());
        assert_eq!(cache.peek(("acme", 7)).await.unwrap().unwrap().b.as_deref(), Some(""));
    })
    .await;
}

#[tokio::test]
async fn keeps_namespaces_and_versions_apart() {
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
async fn a_hit_costs_one_command() {
    on_every_server(async |server, backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(42)));
        cache.get("p-001", primary.loader()).await.unwrap();
        let mut client = server.client().await;
        redis::cmd("CONFIG").arg("RESETSTAT").exec_async(&mut client).await.unwrap();
        for _ in 0..10 {
            cache.get("p-001", primary.loader()).await.unwrap();
        }
        let calls = server.calls().await;
        assert_eq!(calls.get("hmget"), Some(&10));
        let others: Vec<_> =
            calls.iter().filter(|(name, _)| !["hmget", "config|resetstat"].contains(&name.as_str())).collect();
        assert!(others.is_empty(), "{others:?}");
    })
    .await;
}

#[tokio::test]
async fn entries_live_on_for_other_connections() {
    on_every_server(async |server, backend| {
        let primary = Primary::of(loaf(42));
        products(&backend).get("p-001", primary.loader()).await.unwrap();
        let over_socket = Backend::connect(&server.unix_url()).await.unwrap();
        assert_eq!(products(&over_socket).peek("p-001").await.unwrap().as_deref(), Some(&loaf(42)));
    })
    .await;
}
