//! The near cache: what it answers, what it forgets and when, and that each of its guards is needed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cache_aside::proof::{Guard, Rig};
use cache_aside::{Backend, BackendBuilder, BoxError, Cache, Cacheable, NearCache, Outcome, TrackerState, Untracked};
use redis::aio::MultiplexedConnection;
use tokio::time::sleep;

use crate::clusters::{Cluster, ask};
use crate::fixture::until;
use crate::fixture::{Primary, Product, builder, connect, get, load_at_gate, loaf, lookup, on_every_server, products};
use crate::harness::{Flavor, Server};
use crate::least_access::Access;
use crate::proxy::{Lost, Proxy};
use crate::sentinels::Group;

const KEY: &str = "cache:billing:product:p-001";
/// What only a heartbeat asks for.
const HEARTBEAT: &str = "cache:billing:product:\r\n";
const LIMIT: Duration = Duration::from_secs(20);
/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);
const INTERVAL: Duration = Duration::from_millis(200);
const TIMEOUT: Duration = Duration::from_millis(300);
const BOUND: Duration = INTERVAL.saturating_add(TIMEOUT);

/// Entries that end with nothing but what the test is about.
fn near(backend: &Backend) -> Cache<Product> {
    builder(backend).ttl(LONG).jitter(0.0).near_cache(NearCache::entries(1_000).max_age(LONG)).build().unwrap()
}

fn backend(url: &str) -> BackendBuilder {
    let builder = Backend::builder(url).operation_timeout(Duration::from_secs(5));
    builder.heartbeat_interval(INTERVAL).heartbeat_timeout(TIMEOUT)
}

async fn bounded(url: &str) -> Backend {
    backend(url).connect().await.unwrap()
}

/// Gets until the near cache has the record.
async fn warm(cache: &Cache<Product>, primary: &Primary) {
    until(LIMIT, "nothing is kept", async || outcome(cache, primary).await == Outcome::NearHit).await;
}

async fn live(cache: &Cache<Product>) {
    until(LIMIT, "no tracker is live", async || cache.stats().tracker == TrackerState::Live).await;
}

async fn outcome(cache: &Cache<Product>, primary: &Primary) -> Outcome {
    lookup(cache, primary.loader()).await.unwrap().outcome
}

async fn stock(cache: &Cache<Product>, primary: &Primary) -> u32 {
    get(cache, primary.loader()).await.unwrap().unwrap().stock
}

/// Gets until the record is of this version, and prints for how long it was not: never for longer than the bound.
async fn sees(cache: &Cache<Product>, primary: &Primary, version: u32, what: &str) {
    let (began, mut asked) = (Instant::now(), Duration::ZERO);
    while stock(cache, primary).await != version {
        assert!(asked <= BOUND, "the old record is kept: {what}");
        sleep(Duration::from_micros(100)).await;
        asked = began.elapsed();
    }
    println!("{what}: seen after {:?}", began.elapsed());
}

/// Writes as another process does.
async fn write_elsewhere(elsewhere: &Cache<Product>, primary: &Primary, stock: u32) {
    primary.put(loaf(stock));
    elsewhere.invalidate("p-001").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_is_answered_from_memory() {
    on_every_server(async |server, backend| {
        let (cache, primary) = (near(&backend), Primary::of(loaf(42)));
        live(&cache).await;
        assert_eq!(outcome(&cache, &primary).await, Outcome::Loaded);
        warm(&cache, &primary).await;
        let (calls, kept) = (server.calls().await, get(&cache, primary.loader()).await.unwrap().unwrap());
        cache.reset_stats();
        for _ in 0..100 {
            let found = lookup(&cache, primary.loader()).await.unwrap();
            assert_eq!((found.outcome, found.cache_latency), (Outcome::NearHit, Duration::ZERO));
            assert!(Arc::ptr_eq(&found.value.unwrap(), &kept), "it is the same record");
        }
        let fields = (Product::FIELDS.stock, Product::FIELDS.name);
        let found = cache.get_fields("p-001", fields, primary.loader()).await.unwrap();
        assert_eq!(found, Some((42, "Sourdough Loaf".to_owned())));
        let load_many = |_: Vec<String>| async { Ok::<_, BoxError>(Vec::new()) };
        let many = cache.lookup_many(["p-001", "p-001"], load_many).await;
        assert!(many.iter().all(|found| found.as_ref().unwrap().outcome == Outcome::NearHit));
        let mut after = server.calls().await;
        for heartbeat in ["pttl", "client|list"] {
            after.insert(heartbeat.to_owned(), calls.get(heartbeat).copied().unwrap_or_default());
        }
        assert!(calls.iter().all(|(command, calls)| after[command] == *calls), "{calls:?} {after:?}");
        let stats = cache.stats();
        assert_eq!((stats.near_hits, stats.hits, stats.misses, stats.bypasses), (102, 102, 0, 0));
        assert_eq!((stats.hit_rate_pct(), stats.tracker), (100.0, TrackerState::Live));

        let fresh = cache.get_fresh("p-001", primary.loader()).await.unwrap().unwrap();
        assert!(fresh == kept && !Arc::ptr_eq(&fresh, &kept), "it went to Redis");
        assert_eq!(cache.stats().near_hits, 102);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_there_is_no_record_is_kept_too_until_there_is_one() {
    on_every_server(async |_, backend| {
        let (cache, primary) = (near(&backend), Primary::default());
        warm(&cache, &primary).await;
        cache.reset_stats();
        let found = lookup(&cache, primary.loader()).await.unwrap();
        assert_eq!((found.outcome, found.value), (Outcome::NearHit, None));
        assert_eq!((cache.stats().near_hits, cache.stats().not_found_hits), (1, 1));
        primary.put(loaf(1));
        cache.invalidate("p-001").await.unwrap();
        assert_eq!(stock(&cache, &primary).await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_embedded_backend_there_is_none_and_all_else_is_the_same() {
    let (cache, primary) = (near(&connect("memory://").await), Primary::of(loaf(1)));
    assert_eq!(outcome(&cache, &primary).await, Outcome::Loaded);
    for _ in 0..3 {
        assert_eq!(outcome(&cache, &primary).await, Outcome::Hit);
    }
    assert_eq!(cache.get_fresh("p-001", primary.loader()).await.unwrap().unwrap().stock, 1);
    assert_eq!(cache.stats().tracker, TrackerState::Unused);
}

/// Of another process, and of another cache in this one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_writes_of_others_are_seen() {
    on_every_server(async |server, elsewhere| {
        let backend = bounded(&server.url()).await;
        let (cache, primary, elsewhere) = (near(&backend), Primary::of(loaf(0)), products(&elsewhere));
        for version in 1..=20 {
            warm(&cache, &primary).await;
            write_elsewhere(&elsewhere, &primary, version).await;
            sees(&cache, &primary, version, "a write elsewhere").await;
        }
        warm(&cache, &primary).await;
        assert!(elsewhere.update_field("p-001", Product::FIELDS.stock, 41).await.unwrap());
        sees(&cache, &primary, 41, "an update elsewhere").await;
        assert!(cache.stats().near_invalidations >= 21, "{:?}", cache.stats());

        let beside = products(&backend);
        warm(&cache, &primary).await;
        write_elsewhere(&beside, &primary, 42).await;
        assert_eq!(stock(&cache, &primary).await, 42, "at once");
    })
    .await;
}

/// Whether this process sees its own writes at once, while the messages about them are held up.
async fn sees_own_writes(flavor: Flavor, without: Option<Guard>) -> bool {
    let server = Server::start(flavor).await;
    let proxy = Proxy::to(server.port()).await;
    let backend = backend(&proxy.url()).heartbeat_timeout(LONG).connect().await.unwrap();
    let (cache, primary) = (near(&rigged(&backend, without)), Primary::of(loaf(1)));
    warm(&cache, &primary).await;
    proxy.lose(HEARTBEAT, Lost::ReplyForNow).await;
    let mut sees = true;
    cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap();
    sees &= stock(&cache, &primary).await == 2;
    warm(&cache, &primary).await;
    cache.modify("p-001", |product| product.stock = 3).await.unwrap();
    sees &= stock(&cache, &primary).await == 3;
    warm(&cache, &primary).await;
    primary.put(loaf(4));
    cache.invalidate("p-001").await.unwrap();
    sees &= stock(&cache, &primary).await == 4;
    warm(&cache, &primary).await;
    primary.put(loaf(5));
    sees &= cache.refresh("p-001", primary.loader()).await.unwrap().unwrap().stock == 5;
    sees
}

fn rigged(backend: &Backend, without: Option<Guard>) -> Backend {
    match without {
        Some(guard) => backend.rigged(Rig::new().without(guard)),
        None => backend.clone(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_own_writes_are_seen_at_once() {
    for flavor in Flavor::ALL {
        assert!(sees_own_writes(flavor, None).await, "{flavor:?}");
    }
    assert!(!sees_own_writes(Flavor::Redis70, Some(Guard::NearOwnWrite)).await, "the guard is not needed");
}

/// A write whose outcome nobody knows: its reply is lost, and whoever waited for it went away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_fails_or_is_given_up_is_seen_all_the_same() {
    for given_up in [false, true] {
        let server = Server::start(Flavor::Redis70).await;
        let proxy = Proxy::to(server.port()).await;
        let backend = Backend::builder(&proxy.url()).operation_timeout(Duration::from_millis(300));
        let backend = backend.heartbeat_timeout(LONG).connect().await.unwrap();
        let (cache, primary) = (near(&backend), Primary::of(loaf(1)));
        cache.invalidate("p-001").await.unwrap();
        warm(&cache, &primary).await;
        proxy.lose(HEARTBEAT, Lost::ReplyForNow).await;
        primary.put(loaf(2));
        let invalidated = tokio::time::timeout(Duration::from_millis(if given_up { 100 } else { 5_000 }), async {
            tokio::join!(proxy.lose("EVALSHA", Lost::ReplySilently), cache.invalidate("p-001")).1
        });
        assert_eq!(invalidated.await.is_err(), given_up);
        assert_eq!(stock(&cache, &primary).await, 2);
    }
}

/// Whether a record that was read before a message about it was handled is kept.
async fn keeps_what_was_read_before_a_message(flavor: Flavor, without: Option<Guard>) -> bool {
    let server = Server::start(flavor).await;
    let proxy = Proxy::to(server.port()).await;
    let backend = bounded(&proxy.url()).await;
    let (cache, primary) = (near(&rigged(&backend, without)), Primary::of(loaf(1)));
    let elsewhere = products(&connect(&server.url()).await);
    cache.get("p-001", primary.loader()).await.unwrap();
    live(&cache).await;
    let told = cache.stats().near_invalidations;
    let read = futures_util::future::lazy(|_| tokio::spawn(lookup(&cache, primary.loader())));
    let ((), read) = tokio::join!(proxy.lose("HMGET", Lost::ReplyForNow), read);
    write_elsewhere(&elsewhere, &primary, 2).await;
    until(LIMIT, "no message comes", async || cache.stats().near_invalidations > told).await;
    proxy.release();
    let read = read.await.unwrap().unwrap();
    assert_eq!((read.outcome, read.value.unwrap().stock), (Outcome::Hit, 1), "it was asked before");
    let kept = stock(&cache, &primary).await == 1;
    assert_eq!(cache.stats().near_refused_inserts, u64::from(!kept));
    kept
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_before_a_message_about_it_is_not_kept() {
    for flavor in Flavor::ALL {
        assert!(!keeps_what_was_read_before_a_message(flavor, None).await, "{flavor:?}");
    }
    let without = Some(Guard::NearTicket);
    assert!(keeps_what_was_read_before_a_message(Flavor::Redis70, without).await, "the guard is not needed");
}

/// Whether a record outlives a time in which nobody told of changes.
async fn outlives_a_cut(flavor: Flavor, without: Option<Guard>) -> bool {
    let server = Server::start(flavor).await;
    let proxy = Proxy::to(server.port()).await;
    let backend = bounded(&proxy.url()).await;
    let (cache, primary) = (near(&rigged(&backend, without)), Primary::of(loaf(1)));
    let elsewhere = products(&connect(&server.url()).await);
    warm(&cache, &primary).await;
    let flushes = cache.stats().near_flushes;
    // Where nothing listens.
    proxy.move_to(1);
    proxy.cut();
    until(LIMIT, "the cut is not noticed", async || cache.stats().tracker == TrackerState::Connecting).await;
    write_elsewhere(&elsewhere, &primary, 2).await;
    assert_ne!(outcome(&cache, &primary).await, Outcome::NearHit, "nothing tells of changes");
    proxy.move_to(server.port());
    live(&cache).await;
    let outlives = stock(&cache, &primary).await == 1;
    assert_eq!(cache.stats().near_flushes > flushes, !outlives);
    outlives
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_outlives_a_time_in_which_nobody_told_of_changes() {
    for flavor in Flavor::ALL {
        assert!(!outlives_a_cut(flavor, None).await, "{flavor:?}");
    }
    assert!(outlives_a_cut(Flavor::Redis70, Some(Guard::NearFlush)).await, "the guard is not needed");
}

/// For how long an old record is answered after a write elsewhere, while the connections carry nothing and stay open.
async fn old_through_a_half_open_link(without: Option<Guard>) -> Duration {
    let server = Server::start(Flavor::Redis70).await;
    let proxy = Proxy::to(server.port()).await;
    // Reads have a heartbeat of their own, by which the near cache is given up too.
    let backend = backend(&proxy.url()).operation_timeout(Duration::from_millis(100)).read_connection(false);
    let backend = backend.connect().await.unwrap();
    let (cache, primary) = (near(&rigged(&backend, without)), Primary::of(loaf(1)));
    let elsewhere = products(&connect(&server.url()).await);
    warm(&cache, &primary).await;
    proxy.black_hole(true);
    let written = Instant::now();
    write_elsewhere(&elsewhere, &primary, 2).await;
    let mut old_for = Duration::ZERO;
    while written.elapsed() < 4 * BOUND {
        let asked = written.elapsed();
        if stock(&cache, &primary).await == 1 {
            old_for = asked;
        }
        sleep(Duration::from_millis(1)).await;
    }
    proxy.black_hole(false);
    if without.is_none() {
        warm(&cache, &primary).await;
        assert_eq!(stock(&cache, &primary).await, 2);
    }
    old_for
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_a_half_open_link_nothing_is_older_than_the_bound() {
    let old_for = old_through_a_half_open_link(None).await;
    println!("the bound is {BOUND:?}: old for {old_for:?}");
    assert!(old_for <= BOUND, "{old_for:?}");
    let old_for = old_through_a_half_open_link(Some(Guard::NearHeartbeat)).await;
    assert!(old_for > 2 * BOUND, "the guard is not needed: {old_for:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_server_stands_still_nothing_is_older_than_the_bound() {
    for flavor in Flavor::ALL {
        let server = Server::start(flavor).await;
        let backend = backend(&server.url()).operation_timeout(Duration::from_millis(100)).connect().await.unwrap();
        let (cache, primary) = (near(&backend), Primary::of(loaf(1)));
        warm(&cache, &primary).await;
        server.freeze();
        let (frozen, mut kept_for, mut asked) = (Instant::now(), Duration::ZERO, Duration::ZERO);
        while outcome(&cache, &primary).await == Outcome::NearHit {
            kept_for = asked;
            assert!(kept_for < LIMIT);
            sleep(Duration::from_millis(1)).await;
            asked = frozen.elapsed();
        }
        println!("{flavor:?}, the bound is {BOUND:?}: kept for {kept_for:?}");
        assert!(kept_for <= BOUND, "{kept_for:?}");
        server.thaw();
        warm(&cache, &primary).await;
    }
}

/// The process itself stands still: nobody drives its tasks, and its clock goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_runtime_that_stands_still_does_not_stretch_the_bound() {
    let server = Server::start(Flavor::Redis70).await;
    let (cache, primary) = (near(&bounded(&server.url()).await), Primary::of(loaf(1)));
    warm(&cache, &primary).await;
    // Within one turn of the only thread that drives tasks.
    let looked = tokio::spawn(async move {
        std::thread::sleep(BOUND + Duration::from_millis(50));
        outcome(&cache, &primary).await
    });
    assert_eq!(looked.await.unwrap(), Outcome::Hit);
}

async fn kill_tracker(operator: &mut MultiplexedConnection) {
    let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(operator).await.unwrap();
    let field = |client: &str, name: &str| {
        client.split(' ').find_map(|field| field.strip_prefix(name)).unwrap_or_default().to_owned()
    };
    // `t`: it is told of changes.
    let trackers = clients.lines().filter(|client| field(client, "flags=").contains('t'));
    let ids: Vec<_> = trackers.map(|client| field(client, "id=")).collect();
    let [id] = &ids[..] else { panic!("not one tracker: {clients}") };
    redis::cmd("CLIENT").arg(&["KILL", "ID", id]).exec_async(operator).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tracker_that_is_killed_is_replaced() {
    on_every_server(async |server, elsewhere| {
        let (cache, primary) = (near(&bounded(&server.url()).await), Primary::of(loaf(1)));
        let (mut operator, elsewhere) = (server.client().await, products(&elsewhere));
        for version in 1..=3 {
            warm(&cache, &primary).await;
            let flushes = cache.stats().near_flushes;
            kill_tracker(&mut operator).await;
            write_elsewhere(&elsewhere, &primary, version).await;
            sees(&cache, &primary, version, "a write while the tracker is killed").await;
            until(LIMIT, "the end goes unnoticed", async || cache.stats().near_flushes > flushes).await;
            live(&cache).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_servers_data_are_flushed_nothing_is_kept() {
    on_every_server(async |server, _| {
        let (cache, primary) = (near(&bounded(&server.url()).await), Primary::of(loaf(1)));
        warm(&cache, &primary).await;
        let flushes = cache.stats().near_flushes;
        primary.put(loaf(2));
        let mut operator = server.client().await;
        redis::cmd("FLUSHALL").exec_async(&mut operator).await.unwrap();
        sees(&cache, &primary, 2, "FLUSHALL").await;
        assert!(cache.stats().near_flushes > flushes);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_simulated_outage_nothing_is_kept() {
    let server = Server::start(Flavor::Redis70).await;
    let backend = connect(&server.url()).await;
    let (cache, primary) = (near(&backend), Primary::of(loaf(1)));
    warm(&cache, &primary).await;
    backend.outage(true);
    assert_eq!(outcome(&cache, &primary).await, Outcome::Bypassed);
    backend.outage(false);
    assert_eq!(outcome(&cache, &primary).await, Outcome::Hit);
    warm(&cache, &primary).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_kept_for_longer_than_its_max_age_or_its_ttl() {
    const SHORT: Duration = Duration::from_millis(400);
    let server = Server::start(Flavor::Redis70).await;
    let (backend, primary) = (connect(&server.url()).await, Primary::of(loaf(1)));
    for (ttl, max_age, after) in [(LONG, SHORT, Outcome::Hit), (SHORT, LONG, Outcome::Loaded)] {
        let settings = NearCache::entries(10).max_age(max_age);
        let cache = builder(&backend).ttl(ttl).not_found_ttl(None).jitter(0.0).near_cache(settings).build().unwrap();
        cache.invalidate("p-001").await.unwrap();
        warm(&cache, &primary).await;
        sleep(SHORT).await;
        assert_eq!(outcome(&cache, &primary).await, after);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_is_bounded_by_number_and_by_bytes() {
    const RECORDS: usize = 500;
    let server = Server::start(Flavor::Redis70).await;
    let backend = connect(&server.url()).await;
    let load = |id: String| async move { Ok::<_, BoxError>(Some(Product { id, name: "x".repeat(1_000), ..loaf(1) })) };
    let (by_number, by_bytes) = (NearCache::entries(20), NearCache::entries(RECORDS).max_bytes(100_000));
    for (settings, most) in [(NearCache::entries(1), 1), (by_number, 20), (by_bytes, 95)] {
        let cache = builder(&backend).ttl(LONG).near_cache(settings.max_age(LONG)).build().unwrap();
        live(&cache).await;
        let get_all = async || {
            let mut kept = 0;
            for number in 0..RECORDS {
                let found = cache.lookup(number.to_string(), load).await.unwrap();
                kept += usize::from(found.outcome == Outcome::NearHit);
            }
            kept
        };
        for _ in 0..3 {
            let kept = get_all().await;
            println!("{kept} of {RECORDS} kept");
            assert!(kept <= most, "{kept} are kept");
        }
        until(LIMIT, "nothing is kept", async || {
            cache.get("0", load).await.unwrap();
            cache.lookup("0", load).await.unwrap().outcome == Outcome::NearHit
        })
        .await;
    }
    let settings = NearCache::entries(RECORDS * 4).max_age(LONG);
    let cache = builder(&backend).ttl(LONG).near_cache(settings).build().unwrap();
    until(LIMIT, "not all are kept", async || {
        let before = cache.stats().near_hits;
        for number in 0..RECORDS {
            cache.get(number.to_string(), load).await.unwrap();
        }
        cache.stats().near_hits - before == RECORDS as u64
    })
    .await;
}

/// As large as a record may be that is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_record_is_kept_too() {
    let server = Server::start(Flavor::Redis70).await;
    let primary = Primary::of(Product { name: "x".repeat(1_000_000), ..loaf(1) });
    warm(&near(&connect(&server.url()).await), &primary).await;
}

async fn refuses_to_track(url: &str, access: impl AsyncFn(&Server)) {
    let server = Server::start(Flavor::Redis70).await;
    access(&server).await;
    let url = url.replace("PORT", &server.port().to_string());
    let (backend, primary) = (connect(&url).await, Primary::of(loaf(1)));
    for (untracked, kept) in [(Untracked::Off, false), (Untracked::MaxAge, true)] {
        let settings = NearCache::entries(10).max_age(Duration::from_secs(3)).untracked(untracked);
        let cache = builder(&backend).near_cache(settings).build().unwrap();
        until(LIMIT, "it is not noticed", async || cache.stats().tracker == TrackerState::Unsupported).await;
        primary.put(loaf(1));
        cache.refresh("p-001", primary.loader()).await.unwrap();
        assert_eq!(outcome(&cache, &primary).await, Outcome::Hit);
        assert_eq!(outcome(&cache, &primary).await == Outcome::NearHit, kept, "{untracked:?}");
        primary.put(loaf(2));
        cache.invalidate("p-001").await.unwrap();
        assert_eq!(stock(&cache, &primary).await, 2, "its own writes");
        write_elsewhere(&products(&connect(&server.url()).await), &primary, 3).await;
        until(LIMIT, "the old record is kept", async || stock(&cache, &primary).await == 3).await;
    }
}

/// The user may not ask for it, and then may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_a_server_can_tell_nothing_is_left_of_the_time_before() {
    let (server, access) = (Server::start(Flavor::Redis70).await, Access::documented());
    access.grant(&server).await;
    let (backend, primary) = (bounded(&access.url(&server.url())).await, Primary::of(loaf(1)));
    let settings = NearCache::entries(10).max_age(LONG).untracked(Untracked::MaxAge);
    let cache = builder(&backend).ttl(LONG).near_cache(settings).build().unwrap();
    warm(&cache, &primary).await;
    assert_eq!(cache.stats().tracker, TrackerState::Unsupported);
    write_elsewhere(&products(&connect(&server.url()).await), &primary, 2).await;
    assert_eq!(stock(&cache, &primary).await, 1, "nobody tells");
    Access::documented_for_near_caches().grant(&server).await;
    // It is asked at once for one more prefix.
    let _orders: Cache<Order> = Cache::builder(backend).near_cache(settings).build().unwrap();
    live(&cache).await;
    assert_eq!(stock(&cache, &primary).await, 2);
}

#[derive(Debug, Clone, PartialEq, Cacheable)]
#[cacheable(namespace = "billing", entity = "product", version = 2, also_invalidates = [none])]
struct Newer {
    #[cacheable(id)]
    id: String,
    stock: u32,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_reaches_the_near_caches_of_other_versions_at_once() {
    let server = Server::start(Flavor::Redis70).await;
    let backend = bounded(&server.url()).await;
    let (cache, primary) = (near(&backend), Primary::of(loaf(1)));
    let newer: Cache<Newer> = Cache::new(backend);
    for version in 2..10 {
        warm(&cache, &primary).await;
        primary.put(loaf(version));
        newer.invalidate("p-001").await.unwrap();
        assert_eq!(stock(&cache, &primary).await, version);
    }
}

/// A cache may outlive the runtime that it was built on, as from one test to the next.
#[test]
fn it_goes_on_after_its_runtime_has_ended() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let (server, cache, primary) = first.block_on(async {
        let server = Server::start(Flavor::Redis70).await;
        let (cache, primary) = (near(&bounded(&server.url()).await), Primary::of(loaf(1)));
        warm(&cache, &primary).await;
        (server, cache, primary)
    });
    drop(first);
    second.block_on(async {
        write_elsewhere(&products(&connect(&server.url()).await), &primary, 2).await;
        assert_eq!(stock(&cache, &primary).await, 2);
        warm(&cache, &primary).await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_server_that_cannot_tell_nothing_is_kept_or_for_max_age_alone() {
    refuses_to_track("redis://127.0.0.1:PORT?protocol=resp2", async |_| {}).await;
    refuses_to_track("redis://near:secret@127.0.0.1:PORT", async |server| {
        let rules = ["SETUSER", "near", "on", ">secret", "~*", "&*", "+@all", "-client|tracking"];
        redis::cmd("ACL").arg(&rules).exec_async(&mut server.client().await).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_access_is_enough() {
    for flavor in Flavor::ALL {
        let (server, access) = (Server::start(flavor).await, Access::documented_for_near_caches());
        access.grant(&server).await;
        let cache = near(&connect(&access.url(&server.url())).await);
        warm(&cache, &Primary::of(loaf(1))).await;
    }
}

#[derive(Debug, Cacheable)]
#[cacheable(entity = "billing")]
struct Longer {
    #[cacheable(id)]
    id: u64,
}

#[derive(Debug, Cacheable)]
#[cacheable(namespace = "billing", entity = "order")]
struct Order {
    #[cacheable(id)]
    id: u64,
}

/// Their prefixes are `cache:billing:product:`, `cache:billing:order:` and `cache:billing:`, which overlap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_near_caches_of_a_backend_share_one_connection() {
    on_every_server(async |server, backend| {
        let before = server.connections().await;
        let settings = NearCache::entries(10);
        let (cache, primary) = (near(&backend), Primary::of(loaf(1)));
        let again = near(&backend);
        warm(&cache, &primary).await;
        let orders: Cache<Order> = Cache::builder(backend.clone()).near_cache(settings).build().unwrap();
        let longer: Cache<Longer> = Cache::builder(backend.clone()).near_cache(settings).build().unwrap();
        let (load_order, load_longer) = (
            |id: u64| async move { Ok::<_, BoxError>(Some(Order { id })) },
            |id: u64| async move { Ok::<_, BoxError>(Some(Longer { id })) },
        );
        until(LIMIT, "nothing is kept", async || {
            let order = orders.lookup(1, load_order).await.unwrap().outcome;
            let longer = longer.lookup(1, load_longer).await.unwrap().outcome;
            (order, longer) == (Outcome::NearHit, Outcome::NearHit)
        })
        .await;
        warm(&cache, &primary).await;
        warm(&again, &primary).await;
        // Reads have one, and what was loaded may have taken one for itself.
        assert!(server.connections().await <= before + 2, "{before}");
        write_elsewhere(&cache, &primary, 2).await;
        assert_eq!((stock(&cache, &primary).await, stock(&again, &primary).await), (2, 2));
        let elsewhere: Cache<Order> = Cache::new(connect(&server.url()).await);
        elsewhere.invalidate(1).await.unwrap();
        until(LIMIT, "the old record is kept", async || {
            orders.lookup(1, load_order).await.unwrap().outcome == Outcome::Loaded
        })
        .await;
        drop((elsewhere, cache, again, orders, longer, backend));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connection_ends_with_its_backend() {
    let server = Server::start(Flavor::Redis70).await;
    let backend = connect(&server.url()).await;
    let cache = near(&backend);
    warm(&cache, &Primary::of(loaf(1))).await;
    drop((cache, backend));
    until(LIMIT, "connections stay", async || server.connections().await == 0).await;
}

/// Without a message it would wait for its next look, which is far by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_another_process_is_woken_by_its_fill() {
    on_every_server(async |server, backend| {
        let primary = Primary::of(loaf(1));
        let settings = NearCache::entries(10);
        let waiting = builder(&backend).wait_poll(LONG).wait_timeout(LONG).near_cache(settings).build().unwrap();
        live(&waiting).await;
        let loading = products(&connect(&server.url()).await);
        let (gate, load) = load_at_gate(&loading, &primary).await;
        let wait = tokio::spawn(lookup(&waiting, primary.loader()));
        sleep(Duration::from_millis(1_500)).await;
        gate.open();
        load.await.unwrap().unwrap();
        let loaded = Instant::now();
        let waited = wait.await.unwrap().unwrap();
        println!("woken {:?} after the fill", loaded.elapsed());
        assert_eq!((waited.outcome, waited.value.unwrap().stock), (Outcome::Waited, 1));
        assert!(loaded.elapsed() < Duration::from_millis(500), "{:?}", loaded.elapsed());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_it_follows_moving_slots_and_a_failover() {
    for flavor in Flavor::OF_CLUSTERS {
        let mut cluster = Cluster::start(flavor).await;
        let (cache, primary) = (near(&bounded(&cluster.url()).await), Primary::of(loaf(0)));
        let elsewhere = products(&connect(&cluster.url()).await);
        let write = async |version, what: &str| {
            write_elsewhere(&elsewhere, &primary, version).await;
            sees(&cache, &primary, version, &format!("{flavor:?}, {what}")).await;
        };
        warm(&cache, &primary).await;
        write(1, "all well").await;

        warm(&cache, &primary).await;
        let way = cluster.open(KEY).await;
        cluster.migrate(KEY, way).await;
        write(2, "its slot on the way").await;
        get(&cache, primary.loader()).await.unwrap();
        write(3, "its slot on the way").await;
        cluster.close(KEY, way).await;
        warm(&cache, &primary).await;
        write(4, "its slot has moved").await;

        warm(&cache, &primary).await;
        cluster.fail_over(KEY).await;
        until(LIMIT, "the writer is out of reach", async || elsewhere.invalidate("p-001").await.is_ok()).await;
        write(5, "after a failover").await;
        warm(&cache, &primary).await;
        write(6, "after a failover").await;
        assert_eq!(ask(&cluster.servers[cluster.owner(KEY).await], "PING").await, "PONG");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_follows_the_sentinels_to_another_master() {
    for flavor in [Flavor::Redis70, Flavor::Valkey91] {
        let group = Group::start(flavor).await;
        let (cache, primary) = (near(&bounded(&group.url()).await), Primary::of(loaf(0)));
        warm(&cache, &primary).await;
        let elsewhere = products(&connect(&group.url()).await);
        group.fail_over().await;
        for version in 1..=2 {
            write_elsewhere(&elsewhere, &primary, version).await;
            sees(&cache, &primary, version, &format!("{flavor:?}, after a failover by sentinels")).await;
            warm(&cache, &primary).await;
        }
    }
}
