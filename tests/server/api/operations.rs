//! Each operation, as documented.

use std::time::Duration;

use cache_aside::{Backend, BoxError, Cache, Cacheable, EntryState, Error, Outcome};

use crate::support::fixture::{Primary, Product, builder, connect, loaf, on_every_backend, on_every_server, products};

#[tokio::test]
async fn get_reads_through_and_then_hits() {
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
async fn a_missing_record_is_stored_as_not_found() {
    on_every_backend(async |backend| {
        let not_found_ttl = Duration::from_secs(20);
        let cache = builder(&backend).not_found_ttl(not_found_ttl).build().unwrap();
        let primary = Primary::default();
        let first = cache.lookup("p-001", primary.loader()).await.unwrap();
        assert_eq!((first.outcome, first.value), (Outcome::Loaded, None));
        let second = cache.lookup("p-001", primary.loader()).await.unwrap();
        assert_eq!((second.outcome, second.value), (Outcome::NotFoundHit, None));
        assert_eq!(cache.peek("p-001").await.unwrap(), None);
        assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::NotFound);
        assert!(cache.ttl("p-001").await.unwrap().unwrap() <= not_found_ttl);

        primary.put(loaf(1));
        assert!(cache.invalidate("p-001").await.unwrap(), "a not-found entry was there");
        assert_eq!(cache.get("p-001", primary.loader()).await.unwrap().as_deref(), Some(&loaf(1)));
        assert_eq!(cache.stats().not_found_hits, 1);
    })
    .await;
}

#[tokio::test]
async fn peek_does_not_load() {
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
async fn refresh_loads_anew() {
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
async fn invalidate_many_keeps_the_order() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(42)));
        cache.get("p-001", primary.loader()).await.unwrap();
        let results = cache.invalidate_many(["p-000", "", "p-001", "p-001"]).await;
        let results: Vec<_> = results.into_iter().map(Result::unwrap).collect();
        assert_eq!(results, [false, false, true, false]);
        let ids: Vec<String> = (0..1000).map(|id| format!("p-{id}")).collect();
        assert_eq!(cache.invalidate_many(&ids).await.len(), 1000);
        assert_eq!(cache.stats().invalidations, 1003);
    })
    .await;
}

#[tokio::test]
async fn inspect_shows_the_stored_entry() {
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
async fn with_loader_binds_a_loader() {
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
async fn entries_are_seen_over_other_connections() {
    on_every_server(async |server, backend| {
        let primary = Primary::of(loaf(42));
        products(&backend).get("p-001", primary.loader()).await.unwrap();
        let over_socket = connect(&server.unix_url()).await;
        assert_eq!(products(&over_socket).peek("p-001").await.unwrap().as_deref(), Some(&loaf(42)));
    })
    .await;
}

#[tokio::test]
async fn a_panicking_loader_is_an_error_and_the_next_get_tries_again() {
    on_every_backend(async |backend| {
        let cache = products(&backend);
        let stock = std::hint::black_box(0_u32);
        let panicking = move |_| async move { Ok::<_, BoxError>(Some(loaf(1 / stock))) };
        let error = cache.get("p-001", panicking).await.unwrap_err();
        assert!(matches!(error, Error::LoadPanicked { .. }), "{error:?}");
        assert!(error.to_string().contains("divide by zero"), "{error}");
        let primary = Primary::of(loaf(1));
        assert!(cache.get("p-001", primary.loader()).await.unwrap().is_some());
        assert_eq!((cache.stats().load_errors, cache.stats().misses), (1, 2));
    })
    .await;
}

#[tokio::test]
async fn get_and_refresh_can_be_spawned() {
    let backend = Backend::connect("memory://").await.unwrap();
    let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
    let get = tokio::spawn(cache.get("p-001", primary.loader()));
    let refresh = tokio::spawn(cache.with_loader(primary.loader()).refresh("p-001".to_owned()));
    assert_eq!(get.await.unwrap().unwrap().as_deref(), Some(&loaf(1)));
    assert_eq!(refresh.await.unwrap().unwrap().as_deref(), Some(&loaf(1)));
}

#[tokio::test]
async fn each_memory_backend_is_a_store_of_its_own_and_clones_share_it() {
    let (one, other) = (connect("memory://").await, connect("memory://").await);
    products(&one).get("p-001", Primary::of(loaf(1)).loader()).await.unwrap();
    assert!(products(&one.clone()).peek("p-001").await.unwrap().is_some());
    assert!(products(&other).peek("p-001").await.unwrap().is_none());
}

#[tokio::test]
async fn a_cache_and_its_clones_share_their_statistics() {
    let (cache, primary) = (products(&connect("memory://").await), Primary::of(loaf(1)));
    for cache in [cache.clone(), cache.clone()] {
        cache.get("p-001", primary.loader()).await.unwrap();
    }
    assert_eq!(primary.loads(), 1);
    assert_eq!((cache.stats().hits, cache.stats().misses), (1, 1));
}

/// Their futures borrow nothing from the cache.
#[tokio::test]
async fn calls_can_be_spawned_and_outlive_the_cache() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(42)));
        cache.get("p-001", primary.loader()).await.unwrap();
        let peek = tokio::spawn(cache.peek("p-001"));
        assert_eq!(peek.await.unwrap().unwrap().as_deref(), Some(&loaf(42)));
        let update = tokio::spawn(cache.update_field("p-001", Product::FIELDS.stock, 41));
        assert!(update.await.unwrap().unwrap());
        let modify = tokio::spawn(cache.modify("p-001", |product| product.stock -= 1));
        assert_eq!(modify.await.unwrap().unwrap().as_deref(), Some(&loaf(40)));
        let invalidate = cache.invalidate("p-001");
        drop(cache);
        assert!(tokio::spawn(invalidate).await.unwrap().unwrap());
        assert_eq!(products(&backend).clear().await.unwrap(), 0);
    })
    .await;
}
