//! Reads share one connection with all other steps but updates: the order of replies on it, and what becomes of reads when it
//! is lost, falls silent, or leads to a server that is no primary any more.

use std::time::Duration;

use cache_aside::{Backend, BoxError, Cache, NearCache, Outcome, TrackerState};
use redis::aio::MultiplexedConnection;
use testkit::proxy::{Lost, Proxy};
use testkit::server::{Flavor, Server};

use crate::fixture::{
    Primary, Product, builder, connect, get, kill_shared_connection, loaf, lookup, on_every_server, products,
    shared_connection, until,
};

const KEY: &str = "cache:billing:product:p-001";
const LIMIT: Duration = Duration::from_secs(10);

async fn exists(operator: &mut MultiplexedConnection) -> bool {
    redis::cmd("EXISTS").arg(KEY).query_async(operator).await.unwrap()
}

/// The reply of an earlier get is still on its way when an invalidation returns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_get_after_an_invalidation_takes_no_reply_from_before_it() {
    for flavor in Flavor::ALL {
        let server = Server::start(flavor).await;
        let proxy = Proxy::to(server.port()).await;
        let (cache, primary) = (products(&connect(&proxy.url()).await), Primary::of(loaf(1)));
        cache.get("p-001", primary.loader()).await.unwrap();
        let read = futures_util::future::lazy(|_| tokio::spawn(lookup(&cache, primary.loader())));
        let ((), early) = tokio::join!(proxy.lose("HMGET", Lost::ReplyForNow), read);
        primary.put(loaf(2));
        let elsewhere = products(&connect(&server.url()).await);
        assert!(elsewhere.invalidate("p-001").await.unwrap());
        let late = tokio::spawn(lookup(&cache, primary.loader()));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!late.is_finished(), "it waits for its own reply");
        proxy.release();
        let (early, late) = (early.await.unwrap().unwrap(), late.await.unwrap().unwrap());
        assert_eq!((early.outcome, early.value.unwrap().stock), (Outcome::Hit, 1), "it was asked before");
        assert_eq!((late.outcome, late.value.unwrap().stock), (Outcome::Loaded, 2));
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

/// Nothing is written that would be refused, and no connection is cut.
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

/// No error tells of it: what is sent is carried out, and the replies get lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_has_fallen_silent_is_replaced() {
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
async fn gets_that_are_dropped_leave_the_others_their_own_replies() {
    const IDS: usize = 50;
    on_every_server(async |_server, backend| {
        let cache = products(&backend);
        let load = |id: String| async move { Ok::<_, BoxError>(Some(Product { id, ..loaf(1) })) };
        for number in 0..IDS {
            cache.get(number.to_string(), load).await.unwrap();
        }
        let readers: Vec<_> = (0..64)
            .map(|reader| {
                let cache: Cache<Product> = cache.clone();
                tokio::spawn(async move {
                    for round in 0..200 {
                        let id = ((reader * 7 + round) % IDS).to_string();
                        let get = cache.lookup(id.clone(), load);
                        if round % 3 == 0 {
                            let _ = tokio::time::timeout(Duration::from_micros(100), get).await;
                            continue;
                        }
                        let found = get.await.unwrap();
                        assert_eq!((found.outcome, &found.value.unwrap().id), (Outcome::Hit, &id));
                    }
                })
            })
            .collect();
        for reader in readers {
            reader.await.unwrap();
        }
    })
    .await;
}

/// Large replies and small ones, of which many come together and hardly one in a single piece.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_that_come_in_pieces_are_whole() {
    const READS: usize = 200;
    const LENGTHS: [usize; 5] = [10, 2_000_000, 30_000, 70_000, 300_000];
    let server = Server::start(Flavor::Redis70).await;
    let cache = builder(&connect(&server.url()).await).max_entry_bytes(4_000_000).build().unwrap();
    let name = |at: usize| at.to_string().repeat(LENGTHS[at % LENGTHS.len()]);
    for at in 0..10 {
        let product = Product { id: at.to_string(), name: name(at), ..loaf(1) };
        cache.get(product.id.clone(), async move |_| Ok::<_, BoxError>(Some(product))).await.unwrap();
    }
    let reads = (0..READS).map(|read| {
        let cache = cache.clone();
        tokio::spawn(async move { cache.peek((read % 10).to_string()).await })
    });
    for (read, product) in reads.collect::<Vec<_>>().into_iter().enumerate() {
        let found = product.await.unwrap().unwrap().unwrap();
        assert!(found.name == name(read % 10), "read {read} has {} bytes", found.name.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_is_too_large_is_refused_and_harms_nobody_else() {
    const TOO_LARGE: usize = 65 * 1024 * 1024;
    let server = Server::start(Flavor::Redis70).await;
    let (cache, primary) = (products(&connect(&server.url()).await), Primary::of(loaf(1)));
    let mut operator = server.client().await;
    let other = "cache:billing:product:p-002";
    redis::cmd("HSET").arg(other).arg("name").arg(vec![b'x'; TOO_LARGE]).exec_async(&mut operator).await.unwrap();
    assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
    let before = shared_connection(&mut operator).await;
    for _ in 0..3 {
        let error = cache.peek("p-002").await.unwrap_err();
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("64 MiB"), "{error:?}");
    }
    assert_eq!(shared_connection(&mut operator).await, before, "the connection was replaced");
    assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Hit);
}
