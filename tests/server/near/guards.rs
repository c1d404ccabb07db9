//! The guards of the near cache: each is needed, since an old record is found without it.

use std::time::{Duration, Instant};

use cache_aside::proof::{Guard, Rig};
use cache_aside::{Backend, BackendBuilder, Cache, Cacheable, Outcome, TrackerState};
use testkit::proxy::{Lost, Proxy};
use testkit::server::{Flavor, Server};
use tokio::time::sleep;

use super::{BOUND, LIMIT, LONG, backend, live, loaded, near, outcome, stock, warm, write_elsewhere};
use crate::support::fixture::{Primary, Product, connect, loaf, lookup, products, until};

/// Only the heartbeat sends this.
const HEARTBEAT: &str = "cache:billing:product:\r\n";

/// Whether this process sees its own writes at once, while the messages about them are delayed: writes of the cache
/// itself, of another cache over the same backend, and of another version.
async fn sees_own_writes(flavor: Flavor, without: Option<Guard>) -> bool {
    let server = Server::start(flavor).await;
    let proxy = Proxy::to(server.port()).await;
    let backend = backend(&proxy.url()).heartbeat_timeout(LONG).connect().await.unwrap();
    let backend_of_both = rigged(&backend, without);
    let (cache, primary) = (near(&backend_of_both), Primary::of(loaf(1)));
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
    sees &= stock(&cache, &primary).await == 5;
    warm(&cache, &primary).await;
    primary.put(loaf(6));
    products(&backend_of_both).invalidate("p-001").await.unwrap();
    sees &= stock(&cache, &primary).await == 6;
    warm(&cache, &primary).await;
    primary.put(loaf(7));
    Cache::<Newer>::new(backend_of_both).invalidate("p-001").await.unwrap();
    sees &= stock(&cache, &primary).await == 7;
    sees
}

/// While the messages about the deleted entries are delayed: `clear` of the cache itself, and of another version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cleared_near_cache_is_empty_at_once() {
    for flavor in Flavor::ALL {
        let server = Server::start(flavor).await;
        let proxy = Proxy::to(server.port()).await;
        let backend = backend(&proxy.url()).heartbeat_timeout(LONG).connect().await.unwrap();
        let (cache, newer, primary) = (near(&backend), Cache::<Newer>::new(backend), Primary::of(loaf(1)));
        warm(&cache, &primary).await;
        proxy.lose(HEARTBEAT, Lost::ReplyForNow).await;
        primary.put(loaf(2));
        assert_eq!(cache.clear().await.unwrap(), 1);
        assert_eq!(stock(&cache, &primary).await, 2, "{flavor:?}");
        warm(&cache, &primary).await;
        primary.put(loaf(3));
        assert_eq!(newer.clear().await.unwrap(), 1);
        assert_eq!(stock(&cache, &primary).await, 3, "{flavor:?}");
    }
}

/// A near cache whose link to its server can fail, and a cache elsewhere that writes.
struct Stage {
    server: Server,
    proxy: Proxy,
    cache: Cache<Product>,
    primary: Primary,
    elsewhere: Cache<Product>,
}

impl Stage {
    async fn set(
        flavor: Flavor,
        without: Option<Guard>,
        settings: impl FnOnce(BackendBuilder) -> BackendBuilder,
    ) -> Self {
        let server = Server::start(flavor).await;
        let proxy = Proxy::to(server.port()).await;
        let backend = settings(backend(&proxy.url())).connect().await.unwrap();
        let cache = near(&rigged(&backend, without));
        let elsewhere = products(&connect(&server.url()).await);
        Self { server, proxy, cache, primary: Primary::of(loaf(1)), elsewhere }
    }
}

fn rigged(backend: &Backend, without: Option<Guard>) -> Backend {
    match without {
        Some(guard) => backend.rigged(Rig::new().without(guard)),
        None => backend.clone(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_writes_are_seen_at_once() {
    for flavor in Flavor::ALL {
        assert!(sees_own_writes(flavor, None).await, "{flavor:?}");
    }
    assert!(!sees_own_writes(Flavor::Redis70, Some(Guard::NearOwnWrite)).await, "the guard is not needed");
}

/// A write with an unknown outcome: its reply is lost, and its caller has been dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_writes_that_fail_or_are_dropped_are_seen_too() {
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
            tokio::join!(proxy.lose("DEL", Lost::ReplySilently), cache.invalidate("p-001")).1
        });
        assert_eq!(invalidated.await.is_err(), given_up);
        assert_eq!(stock(&cache, &primary).await, 2);
    }
}

/// Whether a record that was read before a message about it was handled is kept.
async fn keeps_what_was_read_before_a_message(flavor: Flavor, without: Option<Guard>) -> bool {
    // Otherwise the connection would be replaced while its reply is held.
    let patient = |backend: BackendBuilder| backend.heartbeat_timeout(LONG).operation_timeout(LONG);
    let Stage { server: _server, proxy, cache, primary, elsewhere } = Stage::set(flavor, without, patient).await;
    loaded(&cache, &primary).await;
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
async fn a_record_read_before_a_message_about_it_is_not_kept() {
    for flavor in Flavor::ALL {
        assert!(!keeps_what_was_read_before_a_message(flavor, None).await, "{flavor:?}");
    }
    let without = Some(Guard::NearEpoch);
    assert!(keeps_what_was_read_before_a_message(Flavor::Redis70, without).await, "the guard is not needed");
}

/// Whether a record is kept through a time without messages about changes.
async fn outlives_a_cut(flavor: Flavor, without: Option<Guard>) -> bool {
    let stage = Stage::set(flavor, without, |backend| backend.heartbeat_timeout(LONG));
    let Stage { server, proxy, cache, primary, elsewhere } = stage.await;
    warm(&cache, &primary).await;
    let flushes = cache.stats().near_flushes;
    // A port on which nothing listens.
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
async fn the_near_cache_is_flushed_when_messages_may_have_been_missed() {
    for flavor in Flavor::ALL {
        assert!(!outlives_a_cut(flavor, None).await, "{flavor:?}");
    }
    assert!(outlives_a_cut(Flavor::Redis70, Some(Guard::NearFlush)).await, "the guard is not needed");
}

/// How long an old record is returned after a write elsewhere, while the connections carry nothing and stay open.
async fn old_through_a_half_open_link(without: Option<Guard>) -> Duration {
    let stage = Stage::set(Flavor::Redis70, without, |backend| backend.operation_timeout(Duration::from_millis(100)));
    let Stage { server: _server, proxy, cache, primary, elsewhere } = stage.await;
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

#[derive(Debug, Clone, PartialEq, Cacheable)]
#[cacheable(namespace = "billing", entity = "product", version = 2, also_invalidates = [none])]
struct Newer {
    #[cacheable(id)]
    id: String,
    stock: u32,
}
