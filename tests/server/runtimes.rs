//! One cache in several runtimes, as in a `static` that `#[tokio::test]`s share: some runtimes have ended, and some exist but
//! nobody drives them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cache_aside::{Backend, BackendBuilder, BoxError, Cache, NearCache, Outcome};
use rand::RngExt;
use testkit::server::{Flavor, Server};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};

use crate::fixture::{Gate, Primary, Product, builder, connect, get, loaf, lookup, products, until};

const LIMIT: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(600);

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A step may wait in vain for as long as this, once.
fn backend(url: &str) -> BackendBuilder {
    Backend::builder(url).operation_timeout(Duration::from_secs(1))
}

async fn outcome(cache: &Cache<Product>, primary: &Primary) -> Outcome {
    lookup(cache, primary.loader()).await.unwrap().outcome
}

#[test]
fn a_connection_of_a_runtime_that_nobody_drives_is_replaced_by_the_first_step_elsewhere() {
    let (first, second) = (current_thread(), current_thread());
    let primary = Primary::of(loaf(1));
    let (_server, cache) = first.block_on(async {
        let server = Server::start(Flavor::Redis70).await;
        let cache = products(&backend(&server.url()).connect().await.unwrap());
        cache.get("p-001", primary.loader()).await.unwrap();
        assert_eq!(outcome(&cache, &primary).await, Outcome::Hit);
        (server, cache)
    });
    second.block_on(async {
        let mut others = Vec::new();
        for _ in 0..20 {
            others.push(outcome(&cache, &primary).await);
        }
        others.retain(|outcome| *outcome != Outcome::Hit);
        assert!(others.len() <= 1, "only the first may wait in vain: {others:?}");
        assert!(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());
        assert!(cache.invalidate("p-001").await.unwrap());
    });
    // The first goes on where the second has left off, which is not driven any more.
    first.block_on(async {
        let _first_step = outcome(&cache, &primary).await;
        until(LIMIT, "the cache is not used again", async || outcome(&cache, &primary).await == Outcome::Hit).await;
    });
}

#[test]
fn a_near_cache_of_a_runtime_that_nobody_drives_goes_on_elsewhere() {
    let (first, second) = (current_thread(), current_thread());
    let primary = Primary::of(loaf(1));
    let (server, cache) = first.block_on(async {
        let server = Server::start(Flavor::Redis70).await;
        let settings = NearCache::entries(100).max_age(LONG);
        let cache = builder(&backend(&server.url()).connect().await.unwrap());
        let cache = cache.ttl(LONG).jitter(0.0).near_cache(settings).build().unwrap();
        until(LIMIT, "nothing is kept", async || outcome(&cache, &primary).await == Outcome::NearHit).await;
        (server, cache)
    });
    second.block_on(async {
        let elsewhere = products(&connect(&server.url()).await);
        for version in 2..5 {
            primary.put(loaf(version));
            elsewhere.invalidate("p-001").await.unwrap();
            let read = async || get(&cache, primary.loader()).await.unwrap().unwrap().stock;
            until(LIMIT, "the old record is kept", async || read().await == version).await;
            until(LIMIT, "nothing is kept again", async || outcome(&cache, &primary).await == Outcome::NearHit).await;
        }
    });
}

#[test]
fn a_failed_invalidation_is_retried_by_whichever_runtime_uses_the_cache() {
    let (first, second) = (current_thread(), current_thread());
    let primary = Primary::of(loaf(1));
    let (server, cache) = first.block_on(async {
        let server = Server::start(Flavor::Redis70).await;
        let cache = products(&backend(&server.url()).connect().await.unwrap());
        cache.get("p-001", primary.loader()).await.unwrap();
        server.freeze();
        primary.put(loaf(2));
        cache.invalidate("p-001").await.unwrap_err();
        (server, cache)
    });
    server.thaw();
    second.block_on(is_retried(&cache, &primary));
}

/// The same where there is no connection that could depend on a runtime.
#[test]
fn a_failed_invalidation_is_retried_by_whichever_runtime_uses_the_embedded_backend() {
    let (first, second) = (current_thread(), current_thread());
    let primary = Primary::of(loaf(1));
    let (backend, cache) = first.block_on(async {
        let backend = Backend::connect("memory://").await.unwrap();
        let cache = products(&backend);
        cache.get("p-001", primary.loader()).await.unwrap();
        backend.outage(true);
        primary.put(loaf(2));
        cache.invalidate("p-001").await.unwrap_err();
        // The task that retries has begun here.
        sleep(Duration::from_millis(200)).await;
        (backend, cache)
    });
    backend.outage(false);
    second.block_on(is_retried(&cache, &primary));
}

async fn is_retried(cache: &Cache<Product>, primary: &Primary) {
    until(LIMIT, "the invalidation is not retried", async || {
        assert_eq!(get(cache, primary.loader()).await.unwrap().unwrap().stock, 2);
        cache.pending().is_empty()
    })
    .await;
    until(LIMIT, "the cache is not used again", async || outcome(cache, primary).await == Outcome::Hit).await;
    assert_eq!(get(cache, primary.loader()).await.unwrap().unwrap().stock, 2);
}

/// The lease would last for longer than the test.
#[test]
fn a_load_that_ends_with_its_runtime_holds_up_nobody_in_another() {
    for (name, runtime) in [("current-thread", current_thread as fn() -> Runtime), ("multi-thread", multi_thread)] {
        let (first, second, main) = (runtime(), runtime(), multi_thread());
        let primary = Primary::of(loaf(1));
        let server = main.block_on(Server::start(Flavor::Redis70));
        let cache = first.block_on(async {
            let backend = backend(&server.url()).connect().await.unwrap();
            let cache = builder(&backend).lock_ttl(LONG).build().unwrap();
            let gate = Gate::closed();
            tokio::spawn(get(&cache, primary.gated(&gate)));
            gate.arrival().await;
            cache
        });
        drop(first);
        second.block_on(async {
            let began = Instant::now();
            assert!(get(&cache, primary.loader()).await.unwrap().is_some());
            println!("{name}: served after {:?}", began.elapsed());
            assert!(began.elapsed() < Duration::from_secs(2), "{name}: {:?}", began.elapsed());
            until(LIMIT, "the lease is kept", async || outcome(&cache, &primary).await == Outcome::Hit).await;
            assert_eq!(cache.inspect("p-001").await.unwrap().lock_ttl, None, "{name}");
        });
    }
}

/// What a test with a runtime of its own does to records of its own. No call fails, and no record is old.
async fn use_everything(cache: &Cache<Product>, name: &str) {
    let primary = Primary::default();
    for stock in 0.. {
        let id = format!("{name}-{}", stock % 5);
        primary.put(Product { id: id.clone(), ..loaf(stock) });
        cache.invalidate(&id).await.unwrap();
        for _ in 0..3 {
            assert_eq!(cache.get(id.clone(), primary.loader()).await.unwrap().unwrap().stock, stock, "{id}");
        }
        primary.put(Product { id: id.clone(), ..loaf(stock + 1_000_000) });
        cache.update_field(&id, Product::FIELDS.stock, stock + 1_000_000).await.unwrap();
        let found = cache.get(id.clone(), primary.loader()).await.unwrap().unwrap();
        assert_eq!(found.stock, stock + 1_000_000, "{id}");
        // A load that may end with the runtime.
        let slow = |id: String| async move {
            sleep(Duration::from_millis(5)).await;
            Ok::<_, BoxError>(Some(Product { id, ..loaf(0) }))
        };
        tokio::spawn(cache.get(format!("{name}-slow-{stock}"), slow));
    }
}

#[test]
fn many_runtimes_that_come_and_go_share_one_cache_without_a_failed_call() {
    const THREADS: usize = 20;
    const ROUNDS: usize = 5;
    let main = multi_thread();
    let server = main.block_on(Server::start(Flavor::Redis70));
    let (shared, url) = (Arc::new(OnceCell::<Cache<Product>>::new()), server.url());
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (shared, url) = (shared.clone(), url.clone());
            std::thread::spawn(move || {
                for round in 0..ROUNDS {
                    let life = Duration::from_millis(rand::rng().random_range(1..150));
                    current_thread().block_on(async {
                        let cache = shared.get_or_init(async || {
                            let near_cache = NearCache::entries(1_000);
                            builder(&connect(&url).await).near_cache(near_cache).build().unwrap()
                        });
                        let name = format!("{thread}-{round}");
                        let _cut = timeout(life, use_everything(cache.await, &name)).await;
                    });
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    main.block_on(async {
        let (cache, primary) = (shared.get().unwrap(), Primary::of(loaf(1)));
        until(LIMIT, "nothing is kept", async || outcome(cache, &primary).await == Outcome::NearHit).await;
    });
}
