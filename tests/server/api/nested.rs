//! Loaders that get records themselves: they may, unless loads would wait for each other.

use std::sync::Arc;
use std::time::Duration;

use cache_aside::{Backend, BoxError, Cache, CacheBuilder, Error};
use futures_util::future::{BoxFuture, join_all};
use tokio::sync::Barrier;

use crate::support::fixture::{Product, builder, connect, loaf, on_every_backend, products, settle};

/// Far less than a load may take.
const AT_ONCE: Duration = Duration::from_secs(5);

fn of(id: &str) -> Product {
    Product { id: id.into(), ..loaf(1) }
}

/// Gets a record whose loader first does something.
fn get_after(
    cache: &Cache<Product>,
    id: &'static str,
    first: impl FnOnce() -> BoxFuture<'static, Result<(), Error>> + Send + 'static,
) -> BoxFuture<'static, Result<(), Error>> {
    let get = cache.get(id, move |_| async move {
        first().await?;
        Ok::<_, BoxError>(Some(of(id)))
    });
    Box::pin(async move { get.await.map(drop) })
}

fn get(cache: &Cache<Product>, id: &'static str) -> BoxFuture<'static, Result<(), Error>> {
    get_after(cache, id, || Box::pin(async { Ok(()) }))
}

async fn names(error: Result<(), Error>, keys: &str) {
    match error {
        Err(Error::LoadCycle { keys: named, .. }) => assert_eq!(named, keys),
        other => panic!("{other:?}"),
    }
}

async fn at_once<R>(work: impl Future<Output = R>) -> R {
    tokio::time::timeout(AT_ONCE, work).await.expect("the loads wait for each other")
}

#[tokio::test]
async fn a_loader_may_get_other_records() {
    on_every_backend(async |backend| {
        let cache = products(&backend);
        let inner = cache.clone();
        at_once(get_after(&cache, "a", move || get(&inner, "b"))).await.unwrap();
        assert!(cache.peek("a").await.unwrap().is_some() && cache.peek("b").await.unwrap().is_some());
    })
    .await;
}

#[tokio::test]
async fn a_loader_that_gets_its_own_record_is_an_error_at_once() {
    on_every_backend(async |backend| {
        for enabled in [true, false] {
            let cache = builder(&backend).enabled(enabled).build().unwrap();
            let inner = cache.clone();
            let cycle = get_after(&cache, "a", move || get(&inner, "a"));
            names(at_once(cycle).await, "cache:billing:product:a -> cache:billing:product:a").await;
            assert!(cache.peek("a").await.unwrap().is_none());
            at_once(get(&cache, "a")).await.unwrap();
            cache.invalidate("a").await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_loader_that_gets_its_own_record_from_another_cache_of_it_is_an_error_at_once() {
    on_every_backend(async |backend| {
        let (cache, other) = (products(&backend), products(&backend));
        let cycle = get_after(&cache, "a", move || get(&other, "a"));
        names(at_once(cycle).await, "cache:billing:product:a -> cache:billing:product:a").await;
    })
    .await;
}

#[tokio::test]
async fn loaders_that_get_each_others_records_are_an_error_at_once() {
    on_every_backend(async |backend| {
        for enabled in [true, false] {
            let cache = builder(&backend).enabled(enabled).build().unwrap();
            let (second, third) = (cache.clone(), cache.clone());
            let chain = get_after(&cache, "a", move || get_after(&second, "b", move || get(&third, "a")));
            let keys = "cache:billing:product:a -> cache:billing:product:b -> cache:billing:product:a";
            names(at_once(chain).await, keys).await;
        }
    })
    .await;
}

#[tokio::test]
async fn loads_of_different_callers_that_wait_for_each_other_are_an_error_at_once() {
    on_every_backend(async |backend| {
        let caches = [products(&backend), builder(&backend).namespace("other").build().unwrap()];
        let both_load = Arc::new(Barrier::new(2));
        let gets = [(0, "a", 1, "b"), (1, "b", 0, "a")].map(|(own, id, other, other_id)| {
            let (other, both_load) = (caches[other].clone(), both_load.clone());
            get_after(&caches[own], id, move || {
                Box::pin(async move {
                    both_load.wait().await;
                    get(&other, other_id).await
                })
            })
        });
        let ended = at_once(join_all(gets)).await;
        // One of them has seen it, and its error is the other's too.
        for error in ended {
            assert!(matches!(error, Err(Error::LoadCycle { .. })), "{error:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_batch_loader_that_gets_one_of_its_own_records_is_an_error_at_once() {
    on_every_backend(async |backend| {
        let cache = products(&backend);
        let inner = cache.clone();
        let gets = cache.get_many(["a", "b"], move |_ids| {
            let inner = inner.clone();
            async move {
                get(&inner, "b").await?;
                Ok::<_, BoxError>(Vec::new())
            }
        });
        for found in at_once(gets).await {
            assert!(matches!(found, Err(Error::LoadCycle { .. })), "{found:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn loads_in_a_load_around_the_cache_share_its_turn() {
    const TURNS: usize = 8;
    let backend: Backend = connect("memory://").await;
    let set = |cache: CacheBuilder<Product>| cache.max_bypass_loads(TURNS).build().unwrap();
    let cache = set(builder(&backend));
    backend.outage(true);
    let all_have_turns = Arc::new(Barrier::new(TURNS));
    let gets = ["1", "2", "3", "4", "5", "6", "7", "8"].map(|id| {
        let (inner, all_have_turns) = (cache.clone(), all_have_turns.clone());
        get_after(&cache, id, move || {
            Box::pin(async move {
                all_have_turns.wait().await;
                get(&inner, "other").await
            })
        })
    });
    for got in at_once(join_all(gets)).await {
        got.unwrap();
    }
}

#[tokio::test]
async fn loads_that_have_all_turns_may_wait_for_one_that_has_none() {
    const TURNS: usize = 2;
    let backend: Backend = connect("memory://").await;
    let cache = builder(&backend).max_bypass_loads(TURNS).build().unwrap();
    backend.outage(true);
    let (have_turns, may_go_on) = (Arc::new(Barrier::new(TURNS + 1)), Arc::new(Barrier::new(TURNS + 1)));
    let gets = ["1", "2"].map(|id| {
        let (inner, have_turns, may_go_on) = (cache.clone(), have_turns.clone(), may_go_on.clone());
        tokio::spawn(get_after(&cache, id, move || {
            Box::pin(async move {
                have_turns.wait().await;
                may_go_on.wait().await;
                get(&inner, "popular").await
            })
        }))
    });
    have_turns.wait().await;
    let outside = tokio::spawn(get(&cache, "popular"));
    settle().await;
    may_go_on.wait().await;
    for got in at_once(join_all(gets)).await {
        got.unwrap().unwrap();
    }
    at_once(outside).await.unwrap().unwrap();
}
