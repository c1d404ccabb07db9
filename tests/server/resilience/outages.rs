//! Reads while the server is down: they go on, nobody waits for the server, and the cache is used again when it is
//! back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cache_aside::{Backend, BoxError, Cache, EntryState, Error, Outcome};
use rand::RngExt;
use testkit::proxy::Proxy;
use testkit::server::{Flavor, Server};

use crate::support::fixture::{
    Primary, Product, builder, comes_back, connect, loaf, lookup, on_every_backend, products, until, until_applied,
};

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_bypass_the_cache_during_an_outage_and_report_it() {
    on_every_backend(async |backend| {
        let cache = products(&backend);
        let primary = Primary::of(loaf(1));
        cache.get("p-001", primary.loader()).await.unwrap();
        primary.put(loaf(2));
        backend.outage(true);
        let slow = primary.clone().with_latency(Duration::from_millis(500));
        let gets: Vec<_> = (0..100).map(|_| tokio::spawn(lookup(&cache, slow.loader()))).collect();
        for get in gets {
            let lookup = get.await.unwrap().unwrap();
            assert_eq!((lookup.outcome, lookup.value.as_deref()), (Outcome::Bypassed, Some(&loaf(2))));
        }
        assert!(primary.loads() <= 4, "{} loads: those who came while one ran share the next", primary.loads());
        assert_eq!(cache.stats().bypasses, 100);
        assert!(matches!(cache.peek("p-001").await, Err(Error::Backend { .. })));
        assert!(matches!(cache.invalidate("p-001").await, Err(Error::Backend { .. })));
        assert!(matches!(cache.update_field("p-001", Product::FIELDS.stock, 2).await, Err(Error::Backend { .. })));
        backend.outage(false);
        cache.invalidate("p-001").await.unwrap();
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
    })
    .await;
}

#[tokio::test]
async fn ping_fails_during_an_outage() {
    on_every_backend(async |backend| {
        backend.ping().await.unwrap();
        backend.outage(true);
        assert!(matches!(backend.ping().await, Err(Error::Backend { .. })));
        backend.outage(false);
        backend.ping().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn ping_passes_an_open_breaker_and_its_answer_closes_it() {
    for flavor in Flavor::ALL {
        let mut server = Server::start(flavor).await;
        let backend = Backend::builder(&server.url()).breaker_threshold(1).breaker_pause(Duration::from_secs(600));
        let backend = backend.operation_timeout(Duration::from_secs(5)).connect().await.unwrap();
        let cache = products(&backend);
        server.kill().await;
        cache.peek("p-001").await.unwrap_err();
        server.restart().await;
        let error = cache.peek("p-001").await.unwrap_err();
        assert!(error.to_string().contains("it has not answered lately"), "{flavor:?}: {error}");
        // Until then callers may get the error of the last attempt to connect.
        until(LIMIT, "the server doesn't answer", async || backend.ping().await.is_ok()).await;
        assert_eq!(cache.peek("p-001").await.unwrap(), None, "{flavor:?}");
    }
}

#[tokio::test]
async fn ping_ends_by_operation_timeout() {
    let server = Server::start(Flavor::Redis70).await;
    let limit = Duration::from_millis(100);
    let backend = Backend::builder(&server.url()).operation_timeout(limit).connect_timeout(Duration::from_secs(600));
    let backend = backend.connect().await.unwrap();
    server.freeze();
    let ping = tokio::time::timeout(LIMIT, backend.ping()).await;
    ping.expect("it waits for connect_timeout").unwrap_err();
}

#[tokio::test]
async fn a_loader_that_fails_during_an_outage_is_an_error() {
    let backend = Backend::connect("memory://").await.unwrap();
    let cache = products(&backend);
    backend.outage(true);
    let error = cache.get("p-001", |_| async { Err(std::fmt::Error) }).await.unwrap_err();
    assert!(error.downcast_ref::<std::fmt::Error>().is_some());
    assert_eq!((cache.stats().bypasses, cache.stats().misses), (1, 0));
}

#[tokio::test]
async fn the_cache_is_used_again_once_the_server_is_back() {
    for flavor in Flavor::ALL {
        let mut server = Server::start(flavor).await;
        let cache = builder(&connect(&server.url()).await).update_timeout(LIMIT).build().unwrap();
        let primary = Primary::of(loaf(1));
        cache.get("p-001", primary.loader()).await.unwrap();
        assert!(cache.update_field("p-001", Product::FIELDS.stock, 1).await.unwrap());
        server.kill().await;
        let down = lookup(&cache, primary.loader()).await.unwrap();
        assert_eq!(down.outcome, Outcome::Bypassed);
        let refused = cache.invalidate("p-001").await.unwrap_err();
        assert!(refused.to_string().contains(&server.port().to_string()), "{refused}");
        server.restart().await;
        comes_back(&cache, &primary, LIMIT).await;
        assert!(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());
        assert_eq!(cache.peek("p-001").await.unwrap().as_deref(), Some(&loaf(2)));
    }
}

#[tokio::test]
async fn calls_to_a_frozen_server_end_by_operation_timeout() {
    let server = Server::start(Flavor::Redis70).await;
    // Each call finds out by itself, and would wait for a connection for longer than the test does.
    let backend = Backend::builder(&server.url()).breaker_threshold(100).connect_timeout(Duration::from_secs(600));
    let backend = backend.operation_timeout(Duration::from_secs(1)).connect().await.unwrap();
    let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
    cache.get("p-001", primary.loader()).await.unwrap();
    cache.update_field("p-001", Product::FIELDS.stock, 1).await.unwrap();
    server.freeze();
    let began = Instant::now();
    assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Bypassed);
    // Each write is of another record: after a failed write, all reads and updates of its record go around the entry.
    assert!(matches!(cache.update_field("p-001", Product::FIELDS.stock, 2).await, Err(Error::Timeout { .. })));
    assert!(matches!(cache.modify("p-002", |_| ()).await, Err(Error::Timeout { .. })));
    assert!(matches!(cache.invalidate("p-003").await, Err(Error::Timeout { .. })));
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
    server.thaw();
    until(LIMIT, "it is not back", async || cache.invalidate("p-001").await.is_ok()).await;
    assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
    assert!(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());
}

#[tokio::test]
async fn connect_lazy_works_while_the_server_is_down() {
    let mut server = Server::start(Flavor::Valkey91).await;
    server.kill().await;
    let backend = Backend::builder(&server.url()).operation_timeout(LIMIT).connect_lazy().unwrap();
    let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
    assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Bypassed);
    server.restart().await;
    comes_back(&cache, &primary, LIMIT).await;
    assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Record);
}

/// How long reads and their loads took, and the highest number of concurrent loads.
#[derive(Default)]
struct Felt {
    reads: Mutex<Vec<Duration>>,
    loads: Mutex<Vec<Duration>>,
    loading: AtomicUsize,
    most_loading: AtomicUsize,
}

/// Two hundred readers, each of its own record, until `end`, with a loader that takes some five milliseconds. Only
/// reads after `begin` are counted.
async fn read_until(end: Instant, begin: Instant, cache: &Cache<Product>) -> Arc<Felt> {
    const READERS: u32 = 200;
    let felt = Arc::new(Felt::default());
    let readers: Vec<_> =
        (0..READERS).map(|reader| tokio::spawn(read_one(reader, end, begin, cache.clone(), felt.clone()))).collect();
    for reader in readers {
        reader.await.unwrap();
    }
    felt
}

/// Reads one record until `end`.
async fn read_one(reader: u32, end: Instant, begin: Instant, cache: Cache<Product>, felt: Arc<Felt>) {
    while Instant::now() < end {
        let (began, felt_by_load) = (Instant::now(), felt.clone());
        let found = cache.get(reader.to_string(), move |id| async move {
            let (began, felt) = (Instant::now(), felt_by_load);
            felt.most_loading.fetch_max(felt.loading.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
            felt.loading.fetch_sub(1, Ordering::SeqCst);
            felt.loads.lock().unwrap().push(began.elapsed());
            Ok::<_, BoxError>(Some(Product { id, ..loaf(1) }))
        });
        assert!(found.await.unwrap().is_some(), "no read fails");
        if began >= begin {
            felt.reads.lock().unwrap().push(began.elapsed());
        }
        let pause = rand::rng().random_range(10..30);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

fn p99(times: &Mutex<Vec<Duration>>) -> Duration {
    let mut times = times.lock().unwrap();
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// Ten seconds without the server with two hundred readers, and writes that have to be applied afterwards.
async fn ten_seconds_without(url: &str, bound: usize, down: impl AsyncFnOnce(), up: impl AsyncFnOnce()) -> Arc<Felt> {
    /// Far longer than a read may be delayed, so that waiting reads are noticed.
    const OPERATION_TIMEOUT: Duration = Duration::from_secs(2);
    const WRITES: u32 = 50;
    let backend = Backend::builder(url).operation_timeout(OPERATION_TIMEOUT).connect().await.unwrap();
    let cache = builder(&backend).max_bypass_loads(bound).build().unwrap();
    let written = |number: u32| format!("written-{number}");
    let primary = Primary::default();
    for number in 0..WRITES {
        primary.put(Product { id: written(number), ..loaf(1) });
        cache.get(written(number), primary.loader()).await.unwrap();
    }
    down().await;
    let went_down = Instant::now();
    let opened = went_down + OPERATION_TIMEOUT + Duration::from_secs(1);
    let reading = tokio::spawn(async move { read_until(went_down + Duration::from_secs(10), opened, &cache).await });
    let cache = builder(&backend).build().unwrap();
    for number in 0..WRITES {
        primary.put(Product { id: written(number), ..loaf(2) });
        cache.invalidate(written(number)).await.unwrap_err();
    }
    let felt = reading.await.unwrap();
    assert_eq!(cache.pending().keys.len(), WRITES as usize);
    up().await;
    until_applied(&cache).await;
    for number in 0..WRITES {
        let found = cache.get(written(number), primary.loader()).await.unwrap().unwrap();
        assert_eq!(found.stock, 2, "the write of {number} is lost");
    }
    let read = async || cache.lookup(written(0), primary.loader()).await.unwrap().outcome;
    until(LIMIT, "it is used again", async || read().await == Outcome::Hit).await;
    felt
}

/// The readers don't wait: they take only as long as their loader.
fn is_quick(felt: &Felt) {
    /// The longest delay on a machine that is busy with other tests.
    const BUSY: Duration = Duration::from_millis(500);
    let (reads, loads) = (p99(&felt.reads), p99(&felt.loads));
    println!("p99 of reads {reads:?}, of loads {loads:?}");
    assert!(reads < loads + BUSY, "p99 of reads {reads:?}, of loads {loads:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_do_not_wait_during_ten_seconds_with_a_killed_server() {
    let server = tokio::sync::Mutex::new(Server::start(Flavor::Redis70).await);
    let url = server.lock().await.url();
    let (kill, restart) = (async || server.lock().await.kill().await, async || server.lock().await.restart().await);
    is_quick(&*ten_seconds_without(&url, 256, kill, restart).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_do_not_wait_during_ten_seconds_with_a_frozen_server() {
    let server = Server::start(Flavor::Redis82).await;
    let (freeze, thaw) = (async || server.freeze(), async || server.thaw());
    is_quick(&*ten_seconds_without(&server.url(), 256, freeze, thaw).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_do_not_wait_during_ten_seconds_with_a_black_hole() {
    let server = Server::start(Flavor::Valkey91).await;
    let proxy = Proxy::to(server.port()).await;
    let (swallow, carry) = (async || proxy.black_hole(true), async || proxy.black_hole(false));
    is_quick(&*ten_seconds_without(&proxy.url(), 256, swallow, carry).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn max_bypass_loads_holds_during_ten_seconds_with_a_black_hole() {
    const BOUND: usize = 20;
    let server = Server::start(Flavor::Valkey91).await;
    let proxy = Proxy::to(server.port()).await;
    let (swallow, carry) = (async || proxy.black_hole(true), async || proxy.black_hole(false));
    let felt = ten_seconds_without(&proxy.url(), BOUND, swallow, carry).await;
    assert_eq!(felt.most_loading.load(Ordering::SeqCst), BOUND);
}
