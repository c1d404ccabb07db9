//! `stale_retry`: after a failed load the stale record is served for a while without any load.

use std::time::Duration;

use cache_aside::{Backend, BoxError, Cache, Cacheable, Error, Outcome};

use super::{Failure, TTL, age, grown_stale, tolerant};
use crate::support::fixture::{
    Primary, Product, connect, get, loaf, lookup, on_every_backend, on_every_server, products,
};

async fn fails_once_and_pauses_for_all(here: &Cache<Product>, there: &Cache<Product>) {
    let primary = Primary::of(loaf(1));
    grown_stale(here, &primary).await;
    primary.down(true);
    for cache in [here, there, here, there] {
        age(&lookup(cache, primary.loader()).await.unwrap());
    }
    assert_eq!(primary.loads(), 2, "the load that failed is not tried again");

    assert!(there.invalidate("p-001").await.unwrap());
    primary.down(false);
    primary.put(loaf(2));
    for cache in [here, there] {
        assert_eq!(get(cache, primary.loader()).await.unwrap().as_deref(), Some(&loaf(2)));
    }
    assert_eq!(primary.loads(), 3, "after an invalidation it is tried at once");
}

#[tokio::test]
async fn a_failed_load_is_not_retried_until_stale_retry_is_over_or_the_record_is_invalidated() {
    let pause = Duration::from_secs(20);
    // Only the first record grows stale.
    let ttl = move |product: &Product| if product.stock == 1 { TTL } else { pause };
    let cache = |backend: &Backend| tolerant(backend).stale_retry(pause).ttl_by(ttl).build().unwrap();
    on_every_backend(async |backend| fails_once_and_pauses_for_all(&cache(&backend), &cache(&backend)).await).await;
    on_every_server(async |server, backend| {
        let another = connect(&server.url()).await;
        fails_once_and_pauses_for_all(&cache(&backend), &cache(&another)).await;
    })
    .await;
    on_every_backend(async |backend| {
        let (cache, primary) = (tolerant(&backend).stale_retry(TTL).build().unwrap(), Primary::of(loaf(1)));
        grown_stale(&cache, &primary).await;
        primary.down(true);
        age(&lookup(&cache, primary.loader()).await.unwrap());
        tokio::time::sleep(TTL * 2).await;
        age(&lookup(&cache, primary.loader()).await.unwrap());
        assert_eq!(primary.loads(), 3);
    })
    .await;
}

#[tokio::test]
async fn a_get_with_no_stale_record_to_serve_does_not_wait_for_stale_retry() {
    let pause = Duration::from_secs(600);
    on_every_server(async |server, backend| {
        let (tolerant, strict) = (tolerant(&backend).stale_retry(pause).build().unwrap(), products(&backend));
        let primary = Primary::of(loaf(1));
        grown_stale(&tolerant, &primary).await;
        age(&lookup(&tolerant, Failure::Error.loader()).await.unwrap());
        assert!(tolerant.inspect("p-001").await.unwrap().lock_ttl.unwrap() > pause / 2);
        let loaded = lookup(&strict, primary.loader()).await.unwrap();
        assert_eq!((loaded.outcome, primary.loads()), (Outcome::Loaded, 2));

        strict.invalidate("p-001").await.unwrap();
        grown_stale(&tolerant, &primary).await;
        age(&lookup(&tolerant, Failure::Error.loader()).await.unwrap());
        let mut evicting = server.client().await;
        redis::cmd("DEL").arg("cache:billing:product:p-001").exec_async(&mut evicting).await.unwrap();
        assert_eq!(lookup(&tolerant, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
    })
    .await;
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
async fn stale_records_age_on_the_paused_clock() {
    let backend = connect("memory://").await;
    let cache: Cache<Tolerant> = Cache::builder(backend.clone()).jitter(0.0).build().unwrap();
    let ms = Duration::from_millis;
    cache.get(1, |id| async move { Ok::<_, BoxError>(Some(Tolerant { id })) }).await.unwrap();
    tokio::time::advance(ms(29_999)).await;
    assert_eq!(cache.lookup(1, no_primary).await.unwrap().outcome, Outcome::Hit);
    for (later, age, loads) in [(1, 0, 2), (1999, 1999, 2), (1, 2000, 3)] {
        tokio::time::advance(ms(later)).await;
        assert_eq!(
            cache.lookup(1, no_primary).await.unwrap().outcome,
            Outcome::Stale { age: ms(age), revalidating: false }
        );
        assert_eq!(cache.stats().loads, loads);
    }
    tokio::time::advance(ms(7999)).await;
    assert_eq!(
        cache.lookup(1, no_primary).await.unwrap().outcome,
        Outcome::Stale { age: ms(9999), revalidating: false }
    );
    tokio::time::advance(ms(1)).await;
    assert!(matches!(cache.lookup(1, no_primary).await, Err(Error::Load { .. })));

    let strict: Cache<Tolerant> = Cache::builder(backend).stale_if_error(None).refresh_ahead(None).build().unwrap();
    strict.get(1, |id| async move { Ok::<_, BoxError>(Some(Tolerant { id })) }).await.unwrap();
    assert_eq!(strict.inspect(1).await.unwrap().fields.len(), 1, "nothing is noted beside the id");
}
