//! Replies: each call gets its own reply as a whole, however long it is and however it is split.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cache_aside::{Backend, BoxError, Cache, Error, Outcome};
use futures_util::future::join_all;
use testkit::fake::{Answer, Fake};
use testkit::proxy::{Lost, Proxy};
use testkit::server::{Flavor, Server};

use super::{LIMIT, LONG};
use crate::support::fixture::{
    Primary, Product, builder, connect, loaf, lookup, on_every_server, products, shared_connection, until,
};

/// The reply of an earlier get is still on its way when an invalidation returns. With a shorter `operation_timeout` its
/// connection might count as silent, and be replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_get_after_an_invalidation_takes_no_reply_from_before_it() {
    for flavor in Flavor::ALL {
        let server = Server::start(flavor).await;
        let proxy = Proxy::to(server.port()).await;
        let backend = Backend::builder(&proxy.url()).operation_timeout(Duration::from_secs(60));
        let (cache, primary) = (products(&backend.connect().await.unwrap()), Primary::of(loaf(1)));
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

/// Large and small replies, of which many come together and few in a single piece.
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

/// In each round the last replies on a connection come in one piece with the error that ends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_many_connections_that_broke_in_the_middle_of_replies_reads_are_answered() {
    const ROUNDS: usize = 2_000;
    let server = Server::start(Flavor::Redis70).await;
    let sane = Arc::new(AtomicBool::new(true));
    let is_sane = sane.clone();
    let fake = Fake::before(server.port(), move |command| match command {
        "HMGET" | "HGETALL" if !is_sane.load(Ordering::SeqCst) => Answer::ServerThen("these are no replies\r\n"),
        _ => Answer::Server,
    });
    let fake = fake.await;
    let backend = Backend::builder(&fake.url()).operation_timeout(Duration::from_secs(5)).breaker_threshold(u32::MAX);
    // The rounds take longer on a busy machine, and the record must not expire meanwhile.
    let cache = builder(&backend.connect().await.unwrap()).ttl(Duration::from_secs(3_600)).build().unwrap();
    let primary = Primary::of(loaf(1));
    cache.get("p-001", primary.loader()).await.unwrap();

    sane.store(false, Ordering::SeqCst);
    let (began, mut asked, mut answered) = (Instant::now(), 0, 0);
    for round in 0..ROUNDS {
        let reads = if round % 4 == 0 { 40 } else { 15 };
        let replies = join_all((0..reads).map(|_| cache.peek("p-001"))).await;
        let in_vain = replies.iter().any(|reply| matches!(reply, Err(Error::Timeout { .. })));
        assert!(!in_vain, "reads of round {round} have waited in vain");
        asked += reads;
        answered += replies.iter().filter(|reply| reply.is_ok()).count();
    }
    println!("{answered} of {asked} were answered, {} connections, {:?}", fake.accepted(), began.elapsed());
    assert!(fake.accepted() > ROUNDS / 10, "they broke");

    sane.store(true, Ordering::SeqCst);
    until(LIMIT, "the server is not used again", async || cache.peek("p-001").await.is_ok()).await;
    let reads = join_all((0..1_000).map(|_| cache.peek("p-001"))).await;
    assert!(reads.into_iter().all(|read| read.unwrap().as_deref() == Some(&loaf(1))));
    assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Hit);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_is_too_large_fails_only_its_own_call() {
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

/// Checks that a reply eight times as long takes about eight times as long. A reply that is copied or parsed from its
/// start at each receipt takes 64 times as long.
async fn takes_time_in_proportion(read: impl AsyncFn(usize), [short, long]: [usize; 2]) {
    let mut least = f64::MAX;
    // They alternate, so that a busy machine delays both.
    for _ in 0..5 {
        let began = Instant::now();
        read(short).await;
        let middle = Instant::now();
        read(long).await;
        let (short, long) = (middle - began, middle.elapsed());
        println!("{short:?}, {long:?}");
        least = least.min(long.as_secs_f64() / short.as_secs_f64());
    }
    assert!(least < 32.0, "{least}");
}

async fn with_room(server: &Server) -> Cache<Product> {
    let backend = Backend::builder(&server.url()).operation_timeout(Duration::from_secs(60)).connect().await.unwrap();
    builder(&backend).max_entry_bytes(64 << 20).ttl(LONG).build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_with_a_large_field_takes_time_in_proportion_to_its_length() {
    const LENGTHS: [usize; 2] = [5_000_000, 40_000_000];
    let server = Server::start(Flavor::Redis70).await;
    let cache = with_room(&server).await;
    for length in LENGTHS {
        let product = Product { id: length.to_string(), name: "x".repeat(length), ..loaf(1) };
        cache.get(product.id.clone(), async move |_| Ok::<_, BoxError>(Some(product))).await.unwrap();
    }
    let read = async |length: usize| {
        let found = cache.peek(length.to_string()).await.unwrap().unwrap();
        assert_eq!(found.name.len(), length);
    };
    takes_time_in_proportion(read, LENGTHS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_with_many_fields_takes_time_in_proportion_to_its_length() {
    const FIELDS: [usize; 2] = [10_000, 80_000];
    let server = Server::start(Flavor::Redis70).await;
    let (cache, mut operator) = (with_room(&server).await, server.client().await);
    for fields in FIELDS {
        let mut fill = redis::cmd("HSET");
        fill.arg(format!("cache:billing:product:{fields}"));
        (0..fields).for_each(|field| _ = fill.arg(field).arg("x".repeat(300)));
        fill.exec_async(&mut operator).await.unwrap();
    }
    let read = async |fields: usize| {
        assert_eq!(cache.inspect(fields.to_string()).await.unwrap().fields.len(), fields);
    };
    takes_time_in_proportion(read, FIELDS).await;
}
