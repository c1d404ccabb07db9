//! A busy process is not a dead server: a process with much to do, and a process or a server that stands still for a
//! moment.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cache_aside::{Backend, BoxError, Cache, NearCache, Outcome};
use futures_util::future::join_all;
use testkit::proxy::Proxy;
use testkit::server::{Flavor, Server};
use tokio::time::sleep;

use crate::support::fixture::{Primary, Product, builder, loaf, lookup, products, until};

const LIMIT: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(600);

/// How many records a call gets.
const IDS: usize = 100;

/// Loads many records at once. They wait for their turn in this process for longer than `operation_timeout`. If the
/// machine delays the server for that long, all is done once more.
async fn cold_records_at_once(calls: usize) {
    if load_cold_records(calls).await > 0 {
        assert_eq!(load_cold_records(calls).await, 0, "loads around the cache");
    }
}

/// Loads each record for the first time. Returns the number of loads around the cache.
async fn load_cold_records(calls: usize) -> u64 {
    let server = Server::start(Flavor::Redis70).await;
    let backend = Backend::builder(&server.url()).operation_timeout(Duration::from_secs(1)).connect().await.unwrap();
    // A debug build on a busy machine may take longer than the default.
    let cache = builder(&backend).wait_timeout(LONG).load_timeout(LONG).lock_ttl(LONG).ttl(LONG).build().unwrap();
    let (loaded, began) = (Arc::new(Mutex::new(Vec::new())), Instant::now());
    let gets = (0..calls).map(|call| {
        let loaded = loaded.clone();
        let load = move |ids: Vec<String>| {
            loaded.lock().unwrap().extend(ids.clone());
            async move { Ok::<_, BoxError>(ids.into_iter().map(|id| Product { id, ..loaf(1) })) }
        };
        tokio::spawn(cache.get_many((0..IDS).map(move |id| format!("{call}-{id}")), load))
    });
    for records in join_all(gets).await {
        assert!(records.unwrap().iter().all(|record| record.as_ref().is_ok_and(Option::is_some)));
    }
    let loaded = std::mem::take(&mut *loaded.lock().unwrap());
    assert_eq!((loaded.len(), loaded.iter().collect::<HashSet<_>>().len()), (calls * IDS, calls * IDS));
    let bypasses = cache.stats().bypasses;
    let stored: usize = redis::cmd("DBSIZE").query_async(&mut server.client().await).await.unwrap();
    println!("{} records in {:?}, {bypasses} around the cache, {stored} stored", calls * IDS, began.elapsed());
    if bypasses == 0 {
        assert_eq!(stored, calls * IDS, "the entries, and no lease");
        cache.invalidate("0-0").await.unwrap();
    }
    bypasses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_cold_records_at_once_are_loaded_through_the_cache() {
    cold_records_at_once(200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_thousand_cold_records_at_once_are_loaded_through_the_cache() {
    cold_records_at_once(400).await;
}

/// The replies come while the process stands still, and are in the socket until after the deadline. If the machine is
/// so busy that the deadline passes before they come, one round may fail.
#[tokio::test]
async fn a_runtime_that_stood_still_finds_the_replies_that_came_meanwhile() {
    const GETS: usize = 64;
    const ROUNDS: usize = 5;
    let server = Server::start(Flavor::Redis70).await;
    let cache = products(&Backend::connect(&server.url()).await.unwrap());
    let load = |id: String| async move { Ok::<_, BoxError>(Some(Product { id, ..loaf(1) })) };
    for id in 0..GETS {
        cache.get(id.to_string(), load).await.unwrap();
    }
    let mut spoiled = Vec::new();
    for _ in 0..ROUNDS {
        // The server waits until the commands have been sent, so that it can't answer before the runtime stands still.
        server.freeze();
        let gets: Vec<_> = (0..GETS).map(|id| tokio::spawn(cache.lookup(id.to_string(), load))).collect();
        sleep(Duration::from_millis(20)).await;
        server.thaw();
        std::thread::sleep(Duration::from_millis(300));
        let outcomes = join_all(gets).await.into_iter().map(|get| get.unwrap().unwrap().outcome);
        let hits = outcomes.filter(|outcome| *outcome == Outcome::Hit).count();
        let written = cache.invalidate("another").await;
        if hits < GETS || written.is_err() {
            spoiled.push((hits, written));
        }
    }
    assert!(spoiled.len() <= 1, "in {} of {ROUNDS} rounds not all were hits: {spoiled:?}", spoiled.len());
}

/// A few stalls, each longer than the heartbeat's timeout, with a near cache and some gets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stalls_now_and_then_is_not_flooded_with_connections() {
    const STALL: Duration = Duration::from_millis(2_200);
    const STALLS: u64 = 3;
    let server = Server::start(Flavor::Redis70).await;
    let proxy = Proxy::to(server.port()).await;
    let backend = Backend::connect(&proxy.url()).await.unwrap();
    let settings = NearCache::entries(100).max_age(LONG);
    let cache: Cache<Product> = builder(&backend).ttl(LONG).jitter(0.0).near_cache(settings).build().unwrap();
    let primary = Primary::of(loaf(1));
    let outcome = async || lookup(&cache, primary.loader()).await.unwrap().outcome;
    until(LIMIT, "nothing is kept", async || outcome().await == Outcome::NearHit).await;
    let (accepted, flushed) = (proxy.accepted(), cache.stats().near_flushes);
    for _ in 0..STALLS {
        server.freeze();
        let frozen = Instant::now();
        while frozen.elapsed() < STALL {
            outcome().await;
            sleep(Duration::from_millis(20)).await;
        }
        server.thaw();
        until(LIMIT, "nothing is kept again", async || outcome().await == Outcome::NearHit).await;
    }
    let (more, flushes) = (proxy.accepted() - accepted, cache.stats().near_flushes - flushed);
    assert!(more <= 4 * STALLS as usize, "{more} more connections");
    assert!(flushes <= 3 * STALLS, "{flushes} flushes");
    primary.put(loaf(2));
    until(LIMIT, "writes don't arrive", async || cache.invalidate("p-001").await.is_ok()).await;
    assert_eq!(lookup(&cache, primary.loader()).await.unwrap().value.unwrap().stock, 2);
    until(LIMIT, "nothing is kept again", async || outcome().await == Outcome::NearHit).await;
}
