//! `refresh`: loads over the entry, which stays if the load fails.

use cache_aside::proof::{Phase, Step};
use cache_aside::{Backend, BoxError, Cache, Cacheable, Error, Outcome};
use futures_util::future::join_all;

use crate::support::fixture::{
    Found, Gate, Primary, Product, get, load_at_gate, loaf, lookup, on_every_backend, products, settle,
};
use crate::support::process::Process;

fn refresh(
    cache: &Cache<Product>,
    loader: impl Fn(String) -> Found + Send + Sync + 'static,
) -> tokio::task::JoinHandle<Result<Option<u32>, Error>> {
    let refresh = cache.refresh("p-001", loader);
    tokio::spawn(async move { Ok(refresh.await?.map(|product| product.stock)) })
}

#[tokio::test]
async fn others_are_served_the_old_record_while_it_loads() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        get(&cache, primary.loader()).await.unwrap();
        primary.put(loaf(2));
        let gate = Gate::closed();
        let refreshed = refresh(&cache, primary.gated(&gate));
        gate.arrival().await;
        let found = lookup(&cache, primary.loader()).await.unwrap();
        assert_eq!((found.outcome, found.value.as_deref()), (Outcome::Hit, Some(&loaf(1))));
        gate.open();
        assert_eq!(refreshed.await.unwrap().unwrap(), Some(2));
        let found = lookup(&cache, primary.loader()).await.unwrap();
        assert_eq!((found.outcome, found.value.as_deref()), (Outcome::Hit, Some(&loaf(2))));
        assert_eq!(primary.loads(), 2);
        assert_eq!(cache.inspect("p-001").await.unwrap().lock_ttl, None);
    })
    .await;
}

#[tokio::test]
async fn the_old_record_stays_if_the_load_fails() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        get(&cache, primary.loader()).await.unwrap();
        primary.down(true);
        let error = cache.refresh("p-001", primary.loader()).await.unwrap_err();
        assert!(matches!(error, Error::Load { .. }), "{error:?}");
        assert_eq!(cache.peek("p-001").await.unwrap().as_deref(), Some(&loaf(1)));
        let inspection = cache.inspect("p-001").await.unwrap();
        assert_eq!(inspection.lock_ttl, None, "no mark: others would not load anyway");
        primary.down(false);
        primary.remove("p-001");
        assert_eq!(cache.refresh("p-001", primary.loader()).await.unwrap(), None);
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::NotFoundHit);
    })
    .await;
}

#[tokio::test]
async fn it_never_returns_what_was_loaded_before_it_was_called() {
    on_every_backend(async |backend| {
        for other in [false, true] {
            let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
            let holder = if other { products(&backend) } else { cache.clone() };
            let (gate, before) = load_at_gate(&holder, &primary).await;
            primary.put(loaf(2));
            let refreshed = refresh(&cache, primary.loader());
            settle().await;
            gate.open();
            assert_eq!(refreshed.await.unwrap().unwrap(), Some(2));
            assert_eq!(before.await.unwrap().unwrap().as_deref(), Some(&loaf(1)));
            assert_eq!(cache.peek("p-001").await.unwrap().as_deref(), Some(&loaf(2)));
            cache.invalidate("p-001").await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn calls_share_a_load_that_began_after_both() {
    const CALLS: u32 = 20;
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        let gate = Gate::closed();
        let first = refresh(&cache, primary.gated(&gate));
        gate.arrival().await;
        primary.put(loaf(2));
        let later: Vec<_> = (0..CALLS).map(|_| refresh(&cache, primary.loader())).collect();
        settle().await;
        gate.open();
        assert_eq!(first.await.unwrap().unwrap(), Some(1));
        for refreshed in join_all(later).await {
            assert_eq!(refreshed.unwrap().unwrap(), Some(2));
        }
        assert_eq!(primary.loads(), 2);
    })
    .await;
}

#[tokio::test]
async fn nothing_stays_if_an_invalidation_came_while_it_loaded() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        let gate = Gate::closed();
        let refreshed = refresh(&cache, primary.gated(&gate));
        gate.arrival().await;
        primary.put(loaf(2));
        cache.invalidate("p-001").await.unwrap();
        // Another process has filled again, with a row that is older than what the refresh may have loaded.
        get(&products(&backend), primary.loader()).await.unwrap();
        gate.open();
        assert_eq!(refreshed.await.unwrap().unwrap(), Some(1));
        assert_eq!(cache.peek("p-001").await.unwrap(), None);
        assert_eq!(cache.stats().fenced_fills, 1);
    })
    .await;
}

#[tokio::test]
async fn nothing_stays_if_it_is_unknown_whether_it_was_stored() {
    on_every_backend(async |backend| {
        let process = Process::of(&backend, None, |cache| cache);
        let primary = Primary::of(loaf(1));
        get(&process.cache, primary.loader()).await.unwrap();
        primary.put(loaf(2));
        let fill = process.hold(Step::Fill, Phase::Before);
        let refreshed = refresh(&process.cache, primary.loader());
        fill.arrival().await;
        // The step takes longer than it may. It is carried out in the end, or not.
        assert_eq!(refreshed.await.unwrap().unwrap(), Some(2));
        assert_eq!(process.cache.peek("p-001").await.unwrap(), None);
        fill.open();
    })
    .await;
}

#[tokio::test]
async fn a_cache_that_is_out_of_reach_is_an_error_and_pending() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        get(&cache, primary.loader()).await.unwrap();
        primary.put(loaf(2));
        backend.outage(true);
        let error = cache.refresh("p-001", primary.loader()).await.unwrap_err();
        assert!(matches!(error, Error::Backend { .. }), "{error:?}");
        assert!(!cache.pending().is_empty());
        assert_eq!(get(&cache, primary.loader()).await.unwrap().as_deref(), Some(&loaf(2)));
        backend.outage(false);
        crate::support::fixture::until_applied(&cache).await;
        assert_eq!(cache.peek("p-001").await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_disabled_cache_loads_and_invalidates() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        get(&cache, primary.loader()).await.unwrap();
        primary.put(loaf(2));
        cache.set_enabled(false);
        assert_eq!(cache.refresh("p-001", primary.loader()).await.unwrap().as_deref(), Some(&loaf(2)));
        cache.set_enabled(true);
        assert_eq!(cache.peek("p-001").await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn other_versions_are_invalidated_after_a_successful_load_alone() {
    #[derive(Debug, Cacheable)]
    #[cacheable(entity = "page", version = 1)]
    struct Before {
        #[cacheable(id)]
        id: u64,
        views: u32,
    }
    #[derive(Debug, Cacheable)]
    #[cacheable(entity = "page", version = 2, also_invalidates = [1])]
    struct After {
        #[cacheable(id)]
        id: u64,
        views: u32,
    }
    on_every_backend(async |backend: Backend| {
        let (before, after) = (Cache::<Before>::new(backend.clone()), Cache::<After>::new(backend));
        before.get(7, |id| async move { Ok::<_, BoxError>(Some(Before { id, views: 1 })) }).await.unwrap();
        after.refresh(7, |_| async { Err::<Option<After>, BoxError>("on purpose".into()) }).await.unwrap_err();
        assert_eq!(before.peek(7).await.unwrap().unwrap().views, 1);
        let load = |id| async move { Ok::<_, BoxError>(Some(After { id, views: 2 })) };
        assert_eq!(after.refresh(7, load).await.unwrap().unwrap().views, 2);
        assert!(before.peek(7).await.unwrap().is_none());
        assert_eq!(after.peek(7).await.unwrap().unwrap().views, 2);
    })
    .await;
}
