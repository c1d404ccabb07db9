//! When the network or the servers behind an address change under a cache.

use std::time::{Duration, Instant};

use cache_aside::{Backend, Error, Outcome};
use testkit::proxy::Proxy;
use testkit::server::{Flavor, Server};

use crate::fixture::{Primary, Product, builder, comes_back, get, kill_shared_connection, loaf, lookup, products};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_lost_without_a_trace_is_replaced() {
    let server = Server::start(Flavor::Redis70).await;
    let proxy = Proxy::to(server.port()).await;
    let backend = Backend::builder(&proxy.url())
        .operation_timeout(Duration::from_millis(100))
        .connect_timeout(Duration::from_millis(500))
        .connect()
        .await
        .unwrap();
    let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
    cache.get("p-001", primary.loader()).await.unwrap();
    assert!(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());
    proxy.swallow();
    // It fails, or is tried again in time.
    assert!(matches!(cache.invalidate("p-001").await, Ok(_) | Err(Error::Timeout { .. })));
    comes_back(&cache, &primary, Duration::from_secs(10)).await;
    assert!(cache.update_field("p-001", Product::FIELDS.stock, 3).await.unwrap(), "on a connection that works");
    assert_eq!(cache.peek("p-001").await.unwrap().as_deref(), Some(&loaf(3)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalidation_survives_a_connection_that_was_cut_while_idle() {
    for flavor in Flavor::ALL {
        let server = Server::start(flavor).await;
        let proxy = Proxy::to(server.port()).await;
        for protocol in ["resp2", "resp3"] {
            let url = format!("{}?protocol={protocol}", proxy.url());
            let backend = Backend::builder(&url).operation_timeout(Duration::from_secs(2)).connect().await.unwrap();
            let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
            for _ in 0..5 {
                cache.get("p-001", primary.loader()).await.unwrap();
                proxy.cut();
                tokio::time::sleep(Duration::from_millis(100)).await;
                assert!(cache.invalidate("p-001").await.unwrap(), "{protocol}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_and_reads_meet_at_one_server_when_the_address_moves() {
    let (old, new) = (Server::start(Flavor::Redis70).await, Server::start(Flavor::Valkey91).await);
    let proxy = Proxy::to(old.port()).await;
    let backend = Backend::connect(&proxy.url()).await.unwrap();
    let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
    cache.get("p-001", primary.loader()).await.unwrap();
    assert!(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());

    // The address moves. The old server stays up, with the idle connection of updates: only the shared one is cut.
    proxy.move_to(new.port());
    kill_shared_connection(&old).await;
    let (mut operator, began) = (new.client().await, Instant::now());
    while !redis::cmd("EXISTS").arg("cache:billing:product:p-001").query_async::<bool>(&mut operator).await.unwrap() {
        assert!(began.elapsed() < Duration::from_secs(5), "the old server is still read from");
        cache.get("p-001", primary.loader()).await.unwrap();
    }

    primary.put(loaf(8));
    assert!(cache.update_field("p-001", Product::FIELDS.stock, 8).await.unwrap());
    assert_eq!(get(&cache, primary.loader()).await.unwrap().as_deref(), Some(&loaf(8)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaves_a_primary_that_has_become_a_replica() {
    let (old, new) = (Server::start(Flavor::Redis70).await, Server::start(Flavor::Redis70).await);
    let proxy = Proxy::to(old.port()).await;
    let backend = Backend::builder(&proxy.url()).connect_timeout(Duration::from_millis(500)).connect().await.unwrap();
    let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
    cache.get("p-001", primary.loader()).await.unwrap();
    assert!(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());
    let mut operator = old.client().await;
    let replica_of = ["127.0.0.1".to_owned(), new.port().to_string()];
    redis::cmd("REPLICAOF").arg(&replica_of).exec_async(&mut operator).await.unwrap();
    proxy.move_to(new.port());
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < Duration::from_secs(10), "still no update after {:?}", began.elapsed());
        let _ = lookup(&cache, primary.loader()).await.unwrap();
        if let Ok(true) = cache.update_field("p-001", Product::FIELDS.stock, 3).await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(cache.peek("p-001").await.unwrap().as_deref(), Some(&loaf(3)));
}

/// An acquire that was carried out, but not within its deadline: its token is abandoned.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_whose_grant_was_never_heard_of_holds_nobody_up() {
    for flavor in Flavor::ALL {
        let server = Server::start(flavor).await;
        let backend =
            Backend::builder(&server.url()).operation_timeout(Duration::from_millis(100)).connect().await.unwrap();
        let cache = builder(&backend).lock_ttl(Duration::from_secs(60)).build().unwrap();
        let primary = Primary::of(loaf(1));
        // Reads are answered at once, writes are held back and carried out afterwards.
        let mut operator = server.client().await;
        redis::cmd("CLIENT").arg(&["PAUSE", "500", "WRITE"]).exec_async(&mut operator).await.unwrap();
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Bypassed);
        let began = Instant::now();
        comes_back(&cache, &primary, Duration::from_secs(5)).await;
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(cache.inspect("p-001").await.unwrap().lock_ttl, None);
    }
}
