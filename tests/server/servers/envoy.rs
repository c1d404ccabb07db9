//! Envoy's Redis proxy. It answers `WATCH`, and sends it over a connection that all its clients share, so that `EXEC`, which it
//! sends over another one, doesn't notice that a key has changed.

use cache_aside::{Outcome, TrackerState};
use testkit::program::Program;
use testkit::server::{Flavor, Server};

use super::{LIMIT, Works, is_spread_over, is_used, outcome, process, stock};
use crate::support::fixture::{Primary, Product, loaf, until};

const WORKS: Works = Works { updates: false, clear: true, near: TrackerState::Unsupported };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_in_front_of_one_server() {
    let server = Server::start(Flavor::Valkey91).await;
    let proxy = Program::envoy(&[server.port()]).await;
    is_used(&proxy.url(), WORKS).await;
}

/// `SCAN` gets one reply, made of both servers' replies, with two cursors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_in_front_of_two_servers() {
    let servers = [Server::start(Flavor::Redis70).await, Server::start(Flavor::Valkey91).await];
    let proxy = Program::envoy(&[servers[0].port(), servers[1].port()]).await;
    is_spread_over(&proxy.url(), &servers).await;
    is_used(&proxy.url(), Works { clear: false, ..WORKS }).await;
}

/// What the updates of a service would do if they relied on Envoy's `WATCH`: they look at the entry, another process invalidates
/// it, and `HSET` then makes a new entry of one field, which stays for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_through_envoy_leaves_no_partial_entry() {
    let server = Server::start(Flavor::Redis70).await;
    let proxy = Program::envoy(&[server.port()]).await;
    let (cache, elsewhere, primary) = (process(&proxy.url()).await, process(&server.url()).await, Primary::of(loaf(1)));
    let mut operator = server.client().await;
    for _ in 0..50 {
        cache.get("p-001", primary.loader()).await.unwrap();
        let (updated, invalidated) =
            tokio::join!(cache.update_field("p-001", Product::FIELDS.stock, 1), elsewhere.invalidate("p-001"));
        assert!(!updated.unwrap());
        invalidated.unwrap();
        let fields: usize =
            redis::cmd("HLEN").arg("cache:billing:product:p-001").query_async(&mut operator).await.unwrap();
        assert_eq!(fields, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_behind_envoy_is_down_for_a_while() {
    let mut server = Server::start(Flavor::Redis70).await;
    let proxy = Program::envoy(&[server.port()]).await;
    let (cache, primary) = (process(&proxy.url()).await, Primary::of(loaf(1)));
    assert_eq!(outcome(&cache, &primary).await, Outcome::Loaded);
    server.kill().await;
    assert_eq!(stock(&cache, &primary).await, 1);
    primary.put(loaf(2));
    println!("{}", cache.invalidate("p-001").await.unwrap_err());
    assert_eq!(stock(&cache, &primary).await, 2);
    server.restart().await;
    until(LIMIT, "the invalidation is not applied", async || cache.pending().is_empty()).await;
    until(LIMIT, "the cache is not used again", async || outcome(&cache, &primary).await == Outcome::Hit).await;
    assert_eq!(stock(&cache, &primary).await, 2);
}
