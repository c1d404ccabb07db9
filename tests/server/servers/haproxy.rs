//! HAProxy in TCP mode, as many have it in front of a master and its replicas: its checks find the master.

use std::time::Duration;

use cache_aside::{Outcome, TrackerState};
use redis::aio::MultiplexedConnection;
use testkit::program::Program;
use testkit::server::{Flavor, Server};
use tokio::time::sleep;

use super::{LIMIT, Works, is_used, outcome, process, stock};
use crate::support::fixture::{Primary, Product, builder, connect, get, loaf, until};

const LONG: Duration = Duration::from_secs(600);

/// Two servers, of which the second replicates the first.
async fn master_and_replica() -> (Server, Server) {
    let (master, replica) = (Server::start(Flavor::Redis70).await, Server::start(Flavor::Redis70).await);
    replicate(&mut replica.client().await, Some(master.port())).await;
    until(LIMIT, "the replica is not in step", async || {
        let role: Vec<redis::Value> = redis::cmd("ROLE").query_async(&mut replica.client().await).await.unwrap();
        role[3] == redis::Value::BulkString(b"connected".to_vec())
    })
    .await;
    (master, replica)
}

/// Makes a server a replica of the one on this port, or a master.
async fn replicate(server: &mut MultiplexedConnection, master: Option<u16>) {
    let (host, port) = match master {
        Some(port) => ("127.0.0.1", port.to_string()),
        None => ("NO", "ONE".to_owned()),
    };
    redis::cmd("REPLICAOF").arg(host).arg(port).exec_async(server).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_in_front_of_a_server() {
    let server = Server::start(Flavor::Valkey91).await;
    let proxy = Program::haproxy(&[server.port()], LONG, true).await;
    is_used(&proxy.url(), Works { updates: true, clear: true, near: TrackerState::Live }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_were_idle_are_cut() {
    const IDLE: Duration = Duration::from_millis(200);
    let server = Server::start(Flavor::Redis70).await;
    let proxy = Program::haproxy(&[server.port()], IDLE, true).await;
    let (cache, primary) = (process(&proxy.url()).await, Primary::of(loaf(1)));
    assert_eq!(outcome(&cache, &primary).await, Outcome::Loaded);
    for round in 2..4 {
        // Both the shared connection and that of updates.
        assert!(cache.update_field("p-001", Product::FIELDS.stock, round).await.unwrap());
        sleep(2 * IDLE).await;
        assert_eq!(outcome(&cache, &primary).await, Outcome::Hit);
        assert_eq!(stock(&cache, &primary).await, round);
        sleep(2 * IDLE).await;
        cache.invalidate("p-001").await.unwrap();
        primary.put(loaf(round));
        assert_eq!(stock(&cache, &primary).await, round);
        sleep(2 * IDLE).await;
    }
    assert_eq!(cache.stats().bypasses, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_cut_while_they_are_used() {
    let server = Server::start(Flavor::Redis82).await;
    let proxy = Program::haproxy(&[server.port()], LONG, true).await;
    // If the connection is cut again while a lease is given back, the lease runs out.
    let cache = builder(&connect(&proxy.url()).await).lock_ttl(Duration::from_millis(500)).build().unwrap();
    let primary = Primary::of(loaf(1));
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (cache, primary) = (cache.clone(), primary.clone());
            tokio::spawn(async move {
                for _ in 0..300 {
                    get(&cache, primary.loader()).await.unwrap();
                    sleep(Duration::from_millis(1)).await;
                }
            })
        })
        .collect();
    for _ in 0..10 {
        proxy.cut_connections_to(server.port());
        sleep(Duration::from_millis(20)).await;
    }
    for reader in readers {
        reader.await.unwrap();
    }
    assert_eq!(outcome(&cache, &primary).await, Outcome::Hit);
    primary.put(loaf(2));
    until(LIMIT, "writes don't arrive", async || cache.invalidate("p-001").await.is_ok()).await;
    assert_eq!(stock(&cache, &primary).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_behind_haproxy_dies() {
    let (mut master, replica) = master_and_replica().await;
    let proxy = Program::haproxy(&[master.port(), replica.port()], LONG, true).await;
    let (cache, primary) = (process(&proxy.url()).await, Primary::of(loaf(1)));
    assert_eq!(outcome(&cache, &primary).await, Outcome::Loaded);
    until(LIMIT, "the replica gets nothing", async || has_entry(&replica).await).await;

    master.kill().await;
    primary.put(loaf(2));
    println!("{}", cache.invalidate("p-001").await.unwrap_err());
    assert_eq!(stock(&cache, &primary).await, 2, "the entry at the replica is old");
    replicate(&mut replica.client().await, None).await;
    until(LIMIT, "the cache is not used again", async || {
        assert_eq!(stock(&cache, &primary).await, 2);
        outcome(&cache, &primary).await == Outcome::Hit
    })
    .await;
    assert!(has_entry(&replica).await);
    assert!(cache.update_field("p-001", Product::FIELDS.stock, 3).await.unwrap());
}

/// HAProxy leaves the connections to the old master, which is a replica now: it doesn't change what they see any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_behind_haproxy_change_places() {
    let (old, new) = master_and_replica().await;
    let proxy = Program::haproxy(&[old.port(), new.port()], LONG, false).await;
    let (cache, primary) = (process(&proxy.url()).await, Primary::of(loaf(1)));
    assert_eq!(outcome(&cache, &primary).await, Outcome::Loaded);
    until(LIMIT, "the replica gets nothing", async || has_entry(&new).await).await;

    replicate(&mut new.client().await, None).await;
    replicate(&mut old.client().await, Some(new.port())).await;
    primary.put(loaf(2));
    until(LIMIT, "writes don't arrive", async || cache.invalidate("p-001").await.is_ok()).await;
    assert_eq!(stock(&cache, &primary).await, 2);
    until(LIMIT, "the cache is not used again", async || outcome(&cache, &primary).await == Outcome::Hit).await;
    assert_eq!(stock(&cache, &primary).await, 2);
    assert!(has_entry(&new).await);
}

async fn has_entry(server: &Server) -> bool {
    redis::cmd("EXISTS").arg("cache:billing:product:p-001").query_async(&mut server.client().await).await.unwrap()
}
