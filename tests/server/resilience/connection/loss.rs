//! The end of a connection: it is cut, falls silent, or leads to a server that is no longer a primary.

use std::time::{Duration, Instant};

use cache_aside::{Backend, Cache, Cacheable, Error, NearCache, Outcome, TrackerState};
use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use testkit::proxy::{Lost, Proxy};
use testkit::server::{Flavor, Server};
use tokio::time::sleep;

use super::{LIMIT, LONG, chain};
use crate::support::fixture::{
    Primary, Product, builder, comes_back, connect, get, kill_shared_connection, loaf, lookup, products, until,
};

const KEY: &str = "cache:billing:product:p-001";

async fn exists(operator: &mut MultiplexedConnection) -> bool {
    redis::cmd("EXISTS").arg(KEY).query_async(operator).await.unwrap()
}

/// As behind a NAT that forgets connections. The timeouts are twelve times the defaults, so that a busy machine can
/// keep them; one round may be late all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_over_a_silently_dropped_connection_succeeds() {
    const ROUNDS: usize = 5;
    const OPERATION_TIMEOUT: Duration = Duration::from_secs(3);
    const UPDATE_TIMEOUT: Duration = Duration::from_secs(12);
    let server = Server::start(Flavor::Redis70).await;
    for (write, idle) in [
        ("invalidate", Duration::ZERO),
        ("update_field", Duration::ZERO),
        ("second update_field", Duration::ZERO),
        ("invalidate", Duration::from_secs(3)),
        ("second update_field", Duration::from_secs(3)),
    ] {
        let round = async |db: usize| {
            let proxy = Proxy::to(server.port()).await;
            let backend = Backend::builder(&format!("{}/{db}", proxy.url())).operation_timeout(OPERATION_TIMEOUT);
            let cache = builder(&backend.connect().await.unwrap()).update_timeout(UPDATE_TIMEOUT).build().unwrap();
            let primary = Primary::of(loaf(1));
            cache.invalidate("p-001").await.unwrap();
            cache.get("p-001", primary.loader()).await.unwrap();
            if write.starts_with("second") {
                assert!(cache.update_field("p-001", Product::FIELDS.stock, 1).await.unwrap());
            }
            cache.reset_stats();
            proxy.swallow();
            sleep(idle).await;
            primary.put(loaf(2));
            let written = match write {
                "invalidate" => cache.invalidate("p-001").await,
                _ => cache.update_field("p-001", Product::FIELDS.stock, 2).await,
            };
            let read = lookup(&cache, primary.loader()).await.unwrap();
            assert_eq!(read.value.unwrap().stock, 2);
            match written {
                Err(error) => Some(chain(&error)),
                Ok(_) if read.outcome == Outcome::Bypassed => Some("the read was bypassed".to_owned()),
                Ok(_) => None,
            }
        };
        let failed: Vec<_> = join_all((0..ROUNDS).map(round)).await.into_iter().flatten().collect();
        assert!(failed.len() <= 1, "{write} after {idle:?}: {} of {ROUNDS} failed: {failed:?}", failed.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_connection_is_replaced() {
    let server = Server::start(Flavor::Redis70).await;
    let proxy = Proxy::to(server.port()).await;
    let backend = Backend::builder(&proxy.url())
        .operation_timeout(Duration::from_secs(1))
        .connect_timeout(Duration::from_secs(5))
        .connect()
        .await
        .unwrap();
    let cache = builder(&backend).update_timeout(LIMIT).build().unwrap();
    let primary = Primary::of(loaf(1));
    cache.get("p-001", primary.loader()).await.unwrap();
    assert!(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());
    proxy.swallow();
    // It fails, or is retried in time.
    assert!(matches!(cache.invalidate("p-001").await, Ok(_) | Err(Error::Timeout { .. })));
    comes_back(&cache, &primary, LIMIT).await;
    assert!(cache.update_field("p-001", Product::FIELDS.stock, 3).await.unwrap(), "on a connection that works");
    assert_eq!(cache.peek("p-001").await.unwrap().as_deref(), Some(&loaf(3)));
}

/// There is no error: commands are carried out, and the replies are lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_whose_replies_are_lost_is_replaced() {
    let server = Server::start(Flavor::Redis70).await;
    let proxy = Proxy::to(server.port()).await;
    let backend = Backend::builder(&proxy.url()).operation_timeout(Duration::from_millis(100));
    let (cache, primary) = (products(&backend.connect().await.unwrap()), Primary::of(loaf(1)));
    cache.get("p-001", primary.loader()).await.unwrap();
    let accepted = proxy.accepted();
    let read = lookup(&cache, primary.loader());
    let ((), read) = tokio::join!(proxy.lose("HMGET", Lost::ReplySilently), read);
    assert_eq!(read.unwrap().value.as_deref(), Some(&loaf(1)), "around the cache, or over another connection");
    until(LIMIT, "reads are still lost", async || {
        lookup(&cache, primary.loader()).await.unwrap().outcome == Outcome::Hit
    })
    .await;
    assert!(proxy.accepted() > accepted);
    until(LIMIT, "writes are lost", async || cache.invalidate("p-001").await.is_ok()).await;
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

/// Whether it was carried out is unknown, so the entry is invalidated at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_whose_connection_is_lost_is_an_invalidation() {
    for flavor in Flavor::ALL {
        let server = Server::start(flavor).await;
        let proxy = Proxy::to(server.port()).await;
        let (cache, primary) = (products(&connect(&proxy.url()).await), Primary::of(loaf(1)));
        for lost in [Lost::Request, Lost::Reply] {
            get(&cache, primary.loader()).await.unwrap();
            let update = cache.update_field("p-001", Product::FIELDS.stock, 2);
            let ((), updated) = tokio::join!(proxy.lose("EXEC", lost), update);
            assert!(!updated.unwrap() && cache.pending().is_empty(), "{flavor:?}: {lost:?}");
            assert!(!exists(&mut server.client().await).await);
            get(&cache, primary.loader()).await.unwrap();
            assert!(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());
        }
    }
}

/// An acquire that was carried out after its deadline: its token is abandoned.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_granted_after_operation_timeout_is_abandoned() {
    for flavor in Flavor::ALL {
        let server = Server::start(flavor).await;
        let backend =
            Backend::builder(&server.url()).operation_timeout(Duration::from_millis(100)).connect().await.unwrap();
        let cache = builder(&backend).lock_ttl(Duration::from_secs(60)).build().unwrap();
        let primary = Primary::of(loaf(1));
        // Reads are answered at once, writes are held back and carried out afterwards.
        let mut operator = server.client().await;
        redis::cmd("CLIENT").arg(&["PAUSE", "60000", "WRITE"]).exec_async(&mut operator).await.unwrap();
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Bypassed);
        redis::cmd("CLIENT").arg("UNPAUSE").exec_async(&mut operator).await.unwrap();
        comes_back(&cache, &primary, LIMIT).await;
        until(LIMIT, "the lease is kept", async || {
            cache.inspect("p-001").await.is_ok_and(|entry| entry.lock_ttl.is_none())
        })
        .await;
    }
}

/// The address moves to another server while the old one stays up. Only the shared connection is cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_shared_connection_is_lost_all_others_are_given_up_too() {
    let (old, new) = (Server::start(Flavor::Redis70).await, Server::start(Flavor::Valkey91).await);
    let proxy = Proxy::to(old.port()).await;
    let backend = connect(&proxy.url()).await;
    let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
    cache.get("p-001", primary.loader()).await.unwrap();
    assert!(cache.update_field("p-001", Product::FIELDS.stock, 1).await.unwrap());
    let near = builder(&backend).near_cache(NearCache::entries(100)).build().unwrap();
    until(LIMIT, "no tracker is live", async || near.stats().tracker == TrackerState::Live).await;

    proxy.move_to(new.port());
    kill_shared_connection(&old).await;
    let (mut at_old, mut at_new) = (old.client().await, new.client().await);
    until(LIMIT, "reads still go to the old server", async || {
        get(&cache, primary.loader()).await.unwrap();
        exists(&mut at_new).await
    })
    .await;

    primary.put(loaf(2));
    assert!(cache.invalidate("p-001").await.unwrap(), "the new server was told");
    assert!(exists(&mut at_old).await && !exists(&mut at_new).await);
    assert_eq!(get(&cache, primary.loader()).await.unwrap().unwrap().stock, 2);
    assert!(cache.update_field("p-001", Product::FIELDS.stock, 3).await.unwrap(), "the new server was told");
    until(LIMIT, "a connection to the old server is left beside the operator's", async || old.connections().await == 1)
        .await;
    until(LIMIT, "no tracker is live again", async || near.stats().tracker == TrackerState::Live).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_and_reads_go_to_one_server_when_the_address_moves() {
    let (old, new) = (Server::start(Flavor::Redis70).await, Server::start(Flavor::Valkey91).await);
    let proxy = Proxy::to(old.port()).await;
    let cache = builder(&connect(&proxy.url()).await).update_timeout(LIMIT).build().unwrap();
    let primary = Primary::of(loaf(1));
    cache.get("p-001", primary.loader()).await.unwrap();
    assert!(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());

    // The address moves. The old server stays up, with the idle connection of updates: only the shared one is cut.
    proxy.move_to(new.port());
    kill_shared_connection(&old).await;
    let (mut operator, began) = (new.client().await, Instant::now());
    while !redis::cmd("EXISTS").arg("cache:billing:product:p-001").query_async::<bool>(&mut operator).await.unwrap() {
        assert!(began.elapsed() < LIMIT, "the old server is still read from");
        cache.get("p-001", primary.loader()).await.unwrap();
    }

    primary.put(loaf(8));
    assert!(cache.update_field("p-001", Product::FIELDS.stock, 8).await.unwrap());
    assert_eq!(get(&cache, primary.loader()).await.unwrap().as_deref(), Some(&loaf(8)));
}

/// No write is refused, and no connection is cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_demoted_is_not_read_from() {
    for flavor in Flavor::ALL {
        let (server, other) = (Server::start(flavor).await, Server::start(flavor).await);
        let (cache, primary) = (products(&connect(&server.url()).await), Primary::of(loaf(1)));
        cache.get("p-001", primary.loader()).await.unwrap();
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Hit);
        let mut operator = server.client().await;
        let replica_of = ["127.0.0.1".to_owned(), other.port().to_string()];
        redis::cmd("CONFIG").arg(&["SET", "replica-serve-stale-data", "yes"]).exec_async(&mut operator).await.unwrap();
        redis::cmd("REPLICAOF").arg(&replica_of).exec_async(&mut operator).await.unwrap();
        until(LIMIT, "a replica is read from", async || {
            cache.peek("p-001").await.is_err_and(|error| error.to_string().contains("this is a replica"))
        })
        .await;
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Bypassed);
        redis::cmd("REPLICAOF").arg(&["NO", "ONE"]).exec_async(&mut operator).await.unwrap();
        until(LIMIT, "the primary is not used again", async || {
            lookup(&cache, primary.loader()).await.unwrap().outcome == Outcome::Hit
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_leave_a_primary_that_has_become_a_replica() {
    let (old, new) = (Server::start(Flavor::Redis70).await, Server::start(Flavor::Redis70).await);
    let proxy = Proxy::to(old.port()).await;
    let cache = builder(&connect(&proxy.url()).await).update_timeout(LIMIT).build().unwrap();
    let primary = Primary::of(loaf(1));
    cache.get("p-001", primary.loader()).await.unwrap();
    assert!(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());
    let mut operator = old.client().await;
    let replica_of = ["127.0.0.1".to_owned(), new.port().to_string()];
    redis::cmd("REPLICAOF").arg(&replica_of).exec_async(&mut operator).await.unwrap();
    proxy.move_to(new.port());
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < LIMIT, "still no update after {:?}", began.elapsed());
        let _ = lookup(&cache, primary.loader()).await.unwrap();
        if let Ok(true) = cache.update_field("p-001", Product::FIELDS.stock, 3).await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(cache.peek("p-001").await.unwrap().as_deref(), Some(&loaf(3)));
}

#[derive(Debug, Cacheable)]
#[cacheable(namespace = "billing", entity = "order")]
struct Order {
    #[cacheable(id)]
    id: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_for_one_struct_does_not_disturb_another() {
    for flavor in Flavor::ALL {
        let server = Server::start(flavor).await;
        let rules = ["on", ">secret", "&*", "+@all", "~cache:billing:product:*", "~{cache:billing:product:*}:lock"];
        let mut operator = server.client().await;
        redis::cmd("ACL").arg("SETUSER").arg("products").arg(&rules).exec_async(&mut operator).await.unwrap();
        let proxy = Proxy::to(server.port()).await;
        let backend = connect(&proxy.url().replace("redis://", "redis://products:secret@")).await;
        let settings = NearCache::entries(100).max_age(LONG);
        let cache = builder(&backend).ttl(LONG).jitter(0.0).near_cache(settings).build().unwrap();
        let orders: Cache<Order> = Cache::new(backend);
        let primary = Primary::of(loaf(1));
        let near_hit = async || lookup(&cache, primary.loader()).await.unwrap().outcome == Outcome::NearHit;
        until(LIMIT, "nothing is kept", near_hit).await;
        let (accepted, flushes) = (proxy.accepted(), cache.stats().near_flushes);
        for round in 0..12 {
            let refused = orders.invalidate(round).await.unwrap_err();
            assert!(refused.to_string().contains("ACL"), "{refused}");
            assert!(near_hit().await, "round {round}");
            sleep(Duration::from_millis(400)).await;
        }
        assert!(near_hit().await);
        assert_eq!((proxy.accepted(), cache.stats().near_flushes), (accepted, flushes), "{flavor:?}");
        assert!(cache.invalidate("p-001").await.unwrap());
    }
}
