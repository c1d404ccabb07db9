//! When the cache is down: who is held up, how many loads there are, and what becomes of writes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cache_aside::{Backend, BoxError, Cache, EntryState, Error, OnOutage, Outcome, proof};
use rand::RngExt;
use testkit::proxy::Proxy;
use testkit::server::{Flavor, Server};

use crate::fixture::{
    Gate, Primary, Product, builder, load_at_gate, loaf, lookup, on_every_backend, products, settle, until,
};

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

async fn until_applied(cache: &Cache<Product>) {
    until(LIMIT, "invalidations still wait", async || cache.pending().is_empty()).await;
}

/// A backend on a server that is frozen, with an entry of stock 1, and the primary that has stock 2 by now.
async fn frozen_with_an_old_entry(flavor: Flavor) -> (Server, Cache<Product>, Primary) {
    let server = Server::start(flavor).await;
    let backend = Backend::builder(&server.url()).operation_timeout(Duration::from_millis(100));
    let cache = products(&backend.connect().await.unwrap());
    let primary = Primary::of(loaf(1));
    cache.get("p-001", primary.loader()).await.unwrap();
    server.freeze();
    primary.put(loaf(2));
    (server, cache, primary)
}

/// Records, each with as much stock as its number.
fn shelf(size: u32) -> Primary {
    let primary = Primary::default();
    for number in 0..size {
        primary.put(Product { id: number.to_string(), ..loaf(number) });
    }
    primary
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_left_alone() {
    const OPERATION_TIMEOUT: Duration = Duration::from_millis(200);
    let server = Server::start(Flavor::Redis70).await;
    let backend = Backend::builder(&server.url()).operation_timeout(OPERATION_TIMEOUT).breaker_threshold(3);
    let (cache, primary) = (products(&backend.connect().await.unwrap()), Primary::of(loaf(1)));
    cache.get("p-001", primary.loader()).await.unwrap();
    server.freeze();
    let began = Instant::now();
    for _ in 0..3 {
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Bypassed);
    }
    assert!(began.elapsed() >= OPERATION_TIMEOUT * 3, "each waits: {:?}", began.elapsed());
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Bypassed);
    }
    assert!(began.elapsed() < OPERATION_TIMEOUT * 20, "100 reads were held up: {:?}", began.elapsed());
    let error = cache.peek("p-002").await.unwrap_err();
    assert!(error.to_string().contains("left alone"), "{error}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("did not end within") && !cause.contains("p-001"), "{cause}");
    server.thaw();
    until(LIMIT, "it answers again", async || lookup(&cache, primary.loader()).await.unwrap().outcome == Outcome::Hit)
        .await;
}

#[tokio::test]
async fn a_server_that_refuses_is_there() {
    let server = Server::start(Flavor::Redis70).await;
    let backend = Backend::builder(&server.url()).breaker_threshold(1).connect().await.unwrap();
    let cache = products(&backend);
    let mut operator = server.client().await;
    let _: () = redis::cmd("ACL").arg(&["SETUSER", "default", "-hmget"]).query_async(&mut operator).await.unwrap();
    for _ in 0..3 {
        let error = cache.peek("p-001").await.unwrap_err();
        assert!(error.to_string().contains("ACL"), "{error}");
        assert!(!cache.invalidate("p-001").await.unwrap());
    }
}

#[tokio::test]
async fn loads_around_the_cache_are_bounded() {
    const BOUND: usize = 16;
    const GETS: u32 = 10_000;
    on_every_backend(async |backend| {
        let cache = builder(&backend).max_bypass_loads(BOUND).wait_timeout(LIMIT).build().unwrap();
        backend.outage(true);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let gets: Vec<_> = (0..GETS)
            .map(|number| {
                let (running, most) = (running.clone(), most.clone());
                tokio::spawn(cache.lookup(number.to_string(), move |id| async move {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    Ok::<_, BoxError>(Some(Product { id, ..loaf(number) }))
                }))
            })
            .collect();
        for (number, get) in (0..GETS).zip(gets) {
            let lookup = get.await.unwrap().unwrap();
            assert_eq!((lookup.outcome, lookup.value.unwrap().stock), (Outcome::Bypassed, number));
        }
        assert_eq!(most.load(Ordering::SeqCst), BOUND);
        assert_eq!(proof::flights(&cache), 0);
    })
    .await;
}

#[tokio::test]
async fn loads_wait_in_turn_and_not_for_ever() {
    let backend = Backend::connect("memory://").await.unwrap();
    let wait_timeout = Duration::from_millis(300);
    let cache = builder(&backend).max_bypass_loads(1).wait_timeout(wait_timeout).build().unwrap();
    backend.outage(true);
    let (_gate, held) = load_at_gate(&cache, &Primary::of(loaf(1))).await;
    let error = cache.get("p-002", Primary::default().loader()).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    assert!(error.to_string().contains("max_bypass_loads"), "{error}");
    held.abort();

    let cache = builder(&backend).max_bypass_loads(1).build().unwrap();
    let (gate, first) = load_at_gate(&cache, &Primary::of(loaf(1))).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut waiting = Vec::new();
    for number in 0..10 {
        let order = order.clone();
        waiting.push(tokio::spawn(cache.get(number.to_string(), move |_| async move {
            order.lock().unwrap().push(number);
            Ok::<_, BoxError>(None)
        })));
        settle().await;
    }
    gate.open();
    first.await.unwrap().unwrap();
    for get in waiting {
        get.await.unwrap().unwrap();
    }
    assert_eq!(*order.lock().unwrap(), (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_cache_may_fail_instead_of_loading() {
    on_every_backend(async |backend| {
        let cache = builder(&backend).on_outage(OnOutage::Fail).build().unwrap();
        let primary = Primary::of(loaf(1));
        backend.outage(true);
        let error = cache.get("p-001", primary.loader()).await.unwrap_err();
        assert!(matches!(error, Error::Backend { .. }), "{error:?}");
        assert_eq!(primary.loads(), 0);
        backend.outage(false);
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
    })
    .await;
}

#[tokio::test]
async fn a_failed_write_is_remembered_until_it_is_applied() {
    for flavor in Flavor::ALL {
        for write in ["invalidate", "update", "modify", "dropped"] {
            println!("{write} on {flavor:?}");
            let (server, cache, primary) = frozen_with_an_old_entry(flavor).await;
            match write {
                "invalidate" => drop(cache.invalidate("p-001").await.unwrap_err()),
                "update" => drop(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap_err()),
                "modify" => drop(cache.modify("p-001", |product| product.stock = 2).await.unwrap_err()),
                _ => {
                    let hurried = tokio::time::timeout(Duration::from_millis(10), cache.invalidate("p-001"));
                    assert!(hurried.await.is_err(), "the server is frozen");
                }
            }
            let pending = cache.pending();
            assert_eq!(
                (pending.keys.as_slice(), pending.whole_type),
                (&["cache:billing:product:p-001".into()][..], false)
            );
            for _ in 0..3 {
                let found = lookup(&cache, primary.loader()).await.unwrap();
                assert_eq!((found.outcome, found.value.unwrap().stock), (Outcome::Bypassed, 2));
            }
            assert_eq!(cache.peek("p-001").await.unwrap(), None);
            server.thaw();
            until_applied(&cache).await;
            assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Missing);
            let found = lookup(&cache, primary.loader()).await.unwrap();
            assert_eq!((found.outcome, found.value.unwrap().stock), (Outcome::Loaded, 2));
            assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Hit);
        }
    }
}

#[tokio::test]
async fn reads_go_around_an_entry_that_could_not_be_invalidated() {
    let server = Server::start(Flavor::Redis70).await;
    let backend = Backend::connect(&server.url()).await.unwrap();
    let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
    cache.get("p-001", primary.loader()).await.unwrap();
    cache.get("p-002", primary.loader()).await.unwrap();
    // Reads are answered as ever; it is deletions that are refused.
    let mut operator = server.client().await;
    let _: () = redis::cmd("ACL").arg(&["SETUSER", "default", "-del"]).query_async(&mut operator).await.unwrap();
    primary.put(loaf(2));
    cache.invalidate("p-001").await.unwrap_err();
    for _ in 0..3 {
        let found = lookup(&cache, primary.loader()).await.unwrap();
        assert_eq!((found.outcome, found.value.unwrap().stock), (Outcome::Bypassed, 2));
    }
    assert_eq!(cache.peek("p-001").await.unwrap(), None);
    assert_eq!(cache.lookup("p-002", primary.loader()).await.unwrap().outcome, Outcome::NotFoundHit);
    let failing = builder(&backend).on_outage(OnOutage::Fail).build().unwrap();
    let error = failing.get("p-001", primary.loader()).await.unwrap_err();
    assert!(error.to_string().contains("until it is applied"), "{error}");
    assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Record, "the old one");

    let _: () = redis::cmd("ACL").arg(&["SETUSER", "default", "+@all"]).query_async(&mut operator).await.unwrap();
    until_applied(&cache).await;
    assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
}

#[tokio::test]
async fn what_was_loaded_before_a_failed_write_answers_nobody_after_it() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        let (gate, held) = load_at_gate(&cache, &primary).await;
        primary.put(loaf(2));
        backend.outage(true);
        cache.invalidate("p-001").await.unwrap_err();
        let found = lookup(&cache, primary.loader()).await.unwrap();
        assert_eq!((found.outcome, found.value.unwrap().stock), (Outcome::Bypassed, 2));
        backend.outage(false);
        until_applied(&cache).await;
        gate.open();
        assert_eq!(held.await.unwrap().unwrap().unwrap().stock, 1, "it asked before");
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().value.unwrap().stock, 2);
        assert_eq!(cache.stats().fenced_fills, 1);
    })
    .await;
}

#[tokio::test]
async fn nothing_is_changed_in_what_may_be_old() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        cache.get("p-001", primary.loader()).await.unwrap();
        backend.outage(true);
        cache.invalidate("p-001").await.unwrap_err();
        backend.outage(false);
        // Before the next attempt in the background, or after it.
        assert_eq!(cache.modify("p-001", |product| product.stock += 1).await.unwrap(), None);
        assert!(!cache.update_field("p-001", Product::FIELDS.stock, 9).await.unwrap());
        assert!(cache.pending().is_empty());
        assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Missing);
    })
    .await;
}

#[tokio::test]
async fn beyond_the_bound_a_whole_type_waits_and_is_swept() {
    #[derive(Debug, cache_aside::Cacheable)]
    #[cacheable(namespace = "billing", entity = "product_2")]
    struct Other {
        #[cacheable(id)]
        id: String,
    }

    const RECORDS: u32 = 2_000;
    let servers = [Server::start(Flavor::Redis70).await, Server::start(Flavor::Valkey91).await];
    for url in servers.iter().map(Server::url).chain(["memory://".to_owned()]) {
        let backend = Backend::builder(&url).operation_timeout(Duration::from_secs(5)).max_pending_invalidations(3);
        let backend = backend.connect().await.unwrap();
        let (cache, others, primary) = (products(&backend), Cache::<Other>::new(backend.clone()), shelf(RECORDS));
        for number in 1..RECORDS {
            cache.get(number.to_string(), primary.loader()).await.unwrap();
        }
        let other = |id| async move { Ok::<_, BoxError>(Some(Other { id })) };
        for id in ["1", "2"] {
            others.get(id, other).await.unwrap();
        }
        let (gate, arrived) = (Gate::closed(), shelf(1));
        let held = tokio::spawn(cache.get("0", arrived.gated(&gate)));
        gate.arrival().await;

        backend.outage(true);
        for number in 0..5_u32 {
            primary.put(Product { id: number.to_string(), ..loaf(1000 + number) });
            cache.invalidate(number.to_string()).await.unwrap_err();
        }
        others.invalidate("1").await.unwrap_err();
        assert!(cache.pending().whole_type && cache.pending().keys.is_empty(), "{:?}", cache.pending());
        assert_eq!((others.pending().keys.len(), others.pending().whole_type), (1, false));
        let found = cache.lookup("0", primary.loader()).await.unwrap();
        assert_eq!((found.outcome, found.value.unwrap().stock), (Outcome::Bypassed, 1000));
        backend.outage(false);

        until_applied(&cache).await;
        until(LIMIT, "the other type waits", async || others.pending().is_empty()).await;
        gate.open();
        held.await.unwrap().unwrap();
        for number in (0..5).chain([RECORDS - 1]) {
            let inspection = cache.inspect(number.to_string()).await.unwrap();
            assert_eq!((inspection.state, inspection.lock_ttl), (EntryState::Missing, None), "{inspection}");
        }
        assert_eq!(cache.stats().fenced_fills, 1, "the load that was under way is revoked");
        let kept = others.lookup("2", other).await.unwrap();
        assert_eq!(kept.outcome, Outcome::Hit, "another type's entries stay");
    }
}

#[tokio::test]
async fn closing_waits_for_what_is_pending() {
    let (server, cache, _primary) = frozen_with_an_old_entry(Flavor::Redis70).await;
    let backend = Backend::builder(&server.url()).close_timeout(Duration::from_millis(300)).connect_lazy().unwrap();
    backend.close().await.unwrap();
    let cache_of_its_own = products(&backend);
    cache_of_its_own.invalidate("p-001").await.unwrap_err();
    let error = backend.close().await.unwrap_err();
    assert!(error.to_string().contains("applying 1 pending"), "{error}");
    assert!(cache.pending().is_empty(), "each backend has its own");
    server.thaw();
    until(LIMIT, "it is applied", async || backend.close().await.is_ok()).await;
    assert!(cache_of_its_own.pending().is_empty());
}

#[test]
fn what_waits_outlives_the_runtime_that_tried() {
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

/// How long reads and their loads took, and how many loads were under way at the most.
#[derive(Default)]
struct Felt {
    reads: Mutex<Vec<Duration>>,
    loads: Mutex<Vec<Duration>>,
    loading: AtomicUsize,
    most_loading: AtomicUsize,
}

/// Two hundred readers of as many records until `end`, with a loader that takes some five milliseconds. Reads count from
/// `begin` on.
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

/// Ten seconds without the server under two hundred readers, and writes that have to arrive afterwards.
async fn ten_seconds_without(url: &str, bound: usize, down: impl AsyncFnOnce(), up: impl AsyncFnOnce()) -> Arc<Felt> {
    /// Far more than a read may be held up, so that it shows when reads wait for it.
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

/// The readers don't wait: they take as long as their loader.
fn is_quick(felt: &Felt) {
    /// What a machine that is busy with other tests adds at the most.
    const BUSY: Duration = Duration::from_millis(500);
    let (reads, loads) = (p99(&felt.reads), p99(&felt.loads));
    println!("p99 of reads {reads:?}, of loads {loads:?}");
    assert!(reads < loads + BUSY, "p99 of reads {reads:?}, of loads {loads:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_seconds_with_a_killed_server() {
    let server = tokio::sync::Mutex::new(Server::start(Flavor::Redis70).await);
    let url = server.lock().await.url();
    let (kill, restart) = (async || server.lock().await.kill().await, async || server.lock().await.restart().await);
    is_quick(&*ten_seconds_without(&url, 256, kill, restart).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_seconds_with_a_frozen_server() {
    let server = Server::start(Flavor::Redis82).await;
    let (freeze, thaw) = (async || server.freeze(), async || server.thaw());
    is_quick(&*ten_seconds_without(&server.url(), 256, freeze, thaw).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_seconds_with_a_black_hole() {
    let server = Server::start(Flavor::Valkey91).await;
    let proxy = Proxy::to(server.port()).await;
    let (swallow, carry) = (async || proxy.black_hole(true), async || proxy.black_hole(false));
    is_quick(&*ten_seconds_without(&proxy.url(), 256, swallow, carry).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_seconds_with_fewer_loads_at_a_time_than_readers() {
    const BOUND: usize = 20;
    let server = Server::start(Flavor::Valkey91).await;
    let proxy = Proxy::to(server.port()).await;
    let (swallow, carry) = (async || proxy.black_hole(true), async || proxy.black_hole(false));
    let felt = ten_seconds_without(&proxy.url(), BOUND, swallow, carry).await;
    assert_eq!(felt.most_loading.load(Ordering::SeqCst), BOUND);
}

/// Callers that have less patience than the backend's deadline find out that nothing answers all the same.
#[tokio::test]
async fn hurried_callers_open_the_breaker_too() {
    let (server, cache, primary) = frozen_with_an_old_entry(Flavor::Redis70).await;
    let hurried = async || tokio::time::timeout(Duration::from_millis(20), cache.get("p-001", primary.loader())).await;
    until(LIMIT, "nobody waits for the server", async || hurried().await.is_ok()).await;
    server.thaw();
    until(LIMIT, "it is used again", async || lookup(&cache, primary.loader()).await.unwrap().outcome == Outcome::Hit)
        .await;
}

/// All keys of a call that was dropped are remembered, also those whose turn had not come.
#[tokio::test]
async fn many_invalidations_that_were_dropped_are_all_made_up_for() {
    const KEYS: usize = 1_000;
    let (server, cache, primary) = frozen_with_an_old_entry(Flavor::Redis70).await;
    let ids = || (0..KEYS).map(|number| format!("p-{number:03}"));
    let hurried = tokio::time::timeout(Duration::from_millis(10), cache.invalidate_many(ids())).await;
    assert!(hurried.is_err(), "the server is frozen");
    assert_eq!(cache.pending().keys.len(), KEYS);
    server.thaw();
    until_applied(&cache).await;
    assert_eq!(lookup(&cache, primary.loader()).await.unwrap().value.unwrap().stock, 2);
}

/// A runtime drops what is spawned on it while it shuts down: at once, on the thread that spawns.
#[test]
fn a_write_that_is_dropped_with_its_runtime_holds_up_nobody() {
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
            runtime.block_on(async { tokio::time::sleep(Duration::from_millis(50)).await });
            drop(runtime);
            done.send(cache.pending().keys.len()).unwrap();
        });
        let waiting = is_done.recv_timeout(LIMIT).expect("the runtime ends");
        assert_eq!(waiting, 1, "{threads:?}");
    }
}
