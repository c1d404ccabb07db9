//! One cache in several runtimes, for example in a `static` that `#[tokio::test]`s share: some runtimes have ended, and
//! some exist but are not driven.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cache_aside::{Backend, BackendBuilder, BoxError, Cache, Error, NearCache, Outcome};
use rand::RngExt;
use testkit::server::{Flavor, Server};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};

use crate::support::fixture::{
    Gate, Primary, Product, builder, comes_back, connect, get, loaf, lookup, products, settle, until, until_applied,
};

const LIMIT: Duration = Duration::from_secs(20);

const LONG: Duration = Duration::from_secs(600);

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A step may time out after this time, once.
fn backend(url: &str) -> BackendBuilder {
    Backend::builder(url).operation_timeout(Duration::from_secs(1))
}

async fn outcome(cache: &Cache<Product>, primary: &Primary) -> Outcome {
    lookup(cache, primary.loader()).await.unwrap().outcome
}

#[test]
fn a_connection_of_a_runtime_that_is_not_driven_is_replaced_by_the_first_step_of_another() {
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
    // The first runtime takes over from the second, which is not driven any more.
    first.block_on(async {
        let _first_step = outcome(&cache, &primary).await;
        until(LIMIT, "the cache is not used again", async || outcome(&cache, &primary).await == Outcome::Hit).await;
    });
}

#[test]
fn a_near_cache_of_a_runtime_that_is_not_driven_goes_on_in_another() {
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

/// The same where no connection could depend on a runtime.
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
        // The retrying task was started here.
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

/// The lease would last longer than the test.
#[test]
fn a_load_that_ends_with_its_runtime_delays_no_get_in_another() {
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
            assert!(began.elapsed() < LIMIT, "{name}: {:?}", began.elapsed());
            until(LIMIT, "the lease is kept", async || outcome(&cache, &primary).await == Outcome::Hit).await;
            assert_eq!(cache.inspect("p-001").await.unwrap().lock_ttl, None, "{name}");
        });
    }
}

/// Uses its own records as a test with its own runtime does. No call fails, and no record is old.
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

#[test]
fn commands_queued_on_a_runtime_that_is_not_driven_do_not_block_another() {
    const LIMIT: Duration = Duration::from_secs(20);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let primary = Primary::of(loaf(1));
    let (_server, cache) = first.block_on(async {
        let server = Server::start(Flavor::Redis70).await;
        let cache = products(&backend(&server.url()).connect().await.unwrap());
        lookup(&cache, primary.loader()).await.unwrap();
        // Its command is queued, and the task that has to send it waits for its turn.
        {
            let begun = pin!(cache.invalidate("p-002"));
            assert!(futures_util::poll!(begun).is_pending());
        }
        (server, cache)
    });
    second.block_on(async {
        comes_back(&cache, &primary, LIMIT).await;
        until(LIMIT, "writes don't get through", async || cache.invalidate("p-001").await.is_ok()).await;
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Hit);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_on_a_runtime_that_is_not_driven_does_not_block_later_gets() {
    let backend = Backend::connect("memory://").await.unwrap();
    let cache = builder(&backend)
        .load_timeout(Duration::from_millis(300))
        .wait_timeout(Duration::from_millis(300))
        .lock_ttl(Duration::from_millis(200))
        .build()
        .unwrap();
    let (primary, gate, abandoned) = (Primary::of(loaf(1)), Gate::closed(), cache.clone());
    let load = primary.gated(&gate);
    let undriven = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let impatient = async { tokio::time::timeout(Duration::from_millis(50), get(&abandoned, load)).await };
        assert!(runtime.block_on(impatient).is_err());
        runtime
    });
    let undriven = undriven.await.unwrap();
    let gets: Vec<_> = (0..50).map(|_| tokio::spawn(lookup(&cache, primary.loader()))).collect();
    for get in gets {
        assert_eq!(get.await.unwrap().unwrap().value.as_deref(), Some(&loaf(1)));
    }
    assert_eq!(primary.loads(), 2, "they share one load");
    assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Hit);
    undriven.shutdown_background();
}

#[tokio::test]
async fn a_load_lost_with_its_runtime_does_not_block_later_gets() {
    let backend = Backend::connect("memory://").await.unwrap();
    let (cache, primary, gate) = (products(&backend), Primary::of(loaf(1)), Gate::closed());
    let lost = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    lost.spawn(get(&cache, primary.gated(&gate)));
    gate.arrival().await;
    let joined = tokio::spawn(get(&cache, primary.loader()));
    settle().await;
    lost.shutdown_background();
    // The lease of the lost load still exists, like that of a process that died.
    cache.invalidate("p-001").await.unwrap();
    assert_eq!(joined.await.unwrap().unwrap().as_deref(), Some(&loaf(1)));
    assert_eq!(primary.loads(), 2);
}

#[test]
fn a_pending_invalidation_outlives_the_runtime_that_first_tried_it() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let backend = first.block_on(Backend::connect("memory://")).unwrap();
    let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
    first.block_on(async {
        cache.get("p-001", primary.loader()).await.unwrap();
        backend.outage(true);
        cache.invalidate("p-001").await.unwrap_err();
    });
    drop(first);
    backend.outage(false);
    runtime().block_on(async {
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Bypassed);
        until_applied(&cache).await;
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
    });
}

/// A runtime that is shutting down drops a newly spawned task at once, on the spawning thread.
#[test]
fn a_write_dropped_with_its_runtime_is_pending_and_does_not_block_the_shutdown() {
    for threads in [None, Some(2)] {
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut builder = match threads {
                None => tokio::runtime::Builder::new_current_thread(),
                Some(_) => tokio::runtime::Builder::new_multi_thread(),
            };
            let runtime = builder.enable_all().build().unwrap();
            let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("redis://{}", silent.local_addr().unwrap());
            let backend = runtime.block_on(async { Backend::connect_lazy(&url).unwrap() });
            let cache = products(&backend);
            let write = cache.clone();
            runtime.spawn(async move { write.invalidate("p-001").await });
            let connected = runtime.spawn_blocking(move || (silent.accept().unwrap(), silent));
            let _silent = runtime.block_on(connected).unwrap();
            drop(runtime);
            done.send(cache.pending().keys.len()).unwrap();
        });
        let waiting = is_done.recv_timeout(LIMIT).expect("the runtime ends");
        assert_eq!(waiting, 1, "{threads:?}");
    }
}

#[test]
fn calls_outside_of_a_runtime_are_errors_and_do_not_panic() {
    assert!(matches!(Backend::connect_lazy("memory://"), Err(Error::Config { .. })));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let backend = runtime.block_on(Backend::connect("memory://")).unwrap();
    let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut get = Box::pin(get(&cache, primary.loader()));
    assert!(matches!(get.as_mut().poll(&mut context), std::task::Poll::Ready(Err(Error::Config { .. }))));
    let none = |_ids: Vec<String>| async { Ok::<_, BoxError>(Vec::new()) };
    let mut get_many = Box::pin(cache.get_many(["p-001"], none));
    let std::task::Poll::Ready(answers) = get_many.as_mut().poll(&mut context) else { panic!("it waits") };
    assert!(matches!(answers[0], Err(Error::Config { .. })));
    let mut invalidate = cache.invalidate("p-001");
    assert!(matches!(invalidate.as_mut().poll(&mut context), std::task::Poll::Ready(Err(Error::Config { .. }))));
    let mut update = cache.update_field("p-002", Product::FIELDS.stock, 1);
    assert!(matches!(update.as_mut().poll(&mut context), std::task::Poll::Ready(Err(Error::Config { .. }))));
    let mut modify = cache.modify("p-003", |product| product.stock = 1);
    assert!(matches!(modify.as_mut().poll(&mut context), std::task::Poll::Ready(Err(Error::Config { .. }))));
    assert_eq!(cache.pending().keys.len(), 3, "these writes are made up for later");
}
