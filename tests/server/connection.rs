//! The connection to a server that all steps share: what servers, proxies and networks do to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cache_aside::{Backend, BoxError, Cache, Cacheable, Error, NearCache, Outcome, TrackerState};
use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use testkit::fake::{Answer, Fake};
use testkit::proxy::Proxy;
use testkit::server::{Flavor, Server, free_port};
use tokio::time::sleep;

use crate::fixture::{Primary, Product, builder, connect, get, loaf, lookup, on_every_server, products, until};

const LIMIT: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(600);

/// Checks that gets are hits and that writes arrive.
async fn works(cache: &Cache<Product>, primary: &Primary, what: &str) {
    assert_eq!(lookup(cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded, "{what}");
    for _ in 0..20 {
        assert_eq!(lookup(cache, primary.loader()).await.unwrap().outcome, Outcome::Hit, "{what}");
    }
    assert!(cache.update_field("p-001", Product::FIELDS.stock, 7).await.unwrap(), "{what}");
    assert_eq!(get(cache, primary.loader()).await.unwrap().unwrap().stock, 7, "{what}");
    assert!(cache.invalidate("p-001").await.unwrap(), "{what}");
    assert_eq!(lookup(cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded, "{what}");
    assert_eq!(cache.stats().bypasses, 0, "{what}");
}

/// How many of 100 invalidations succeed.
async fn invalidations(cache: &Cache<Product>) -> usize {
    let mut succeeded = 0;
    for _ in 0..100 {
        match cache.invalidate("p-001").await {
            Ok(_) => succeeded += 1,
            Err(error) => println!("{}", chain(&error)),
        }
    }
    succeeded
}

/// An error with its causes.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

async fn as_user(server: &Server, password: &str) -> MultiplexedConnection {
    let client = redis::Client::open(with_password(&server.url(), password)).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

fn with_password(url: &str, password: &str) -> String {
    url.replace("redis://", &format!("redis://:{password}@"))
}

/// The words are those of servers and proxies. The others are no answers to `ROLE` at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_role_in_any_words_is_used() {
    let server = Server::start(Flavor::Redis70).await;
    for answer in [
        "-NOPERM this user has no permissions to run the 'role' command\r\n",
        "-ERR unknown command 'ROLE', with args beginning with:\r\n",
        "-ERR unsupported command 'ROLE'\r\n",
        "-ERR unknown or unsupported command\r\n",
        "-Err unknown or unsupported command 'role'\r\n",
        "-invalid request\r\n",
        "+OK\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "*0\r\n",
        "*1\r\n:7\r\n",
        "*1\r\n$7\r\nprimary\r\n",
    ] {
        let rule = move |command: &str| if command == "ROLE" { Answer::Fake(answer) } else { Answer::Server };
        let fake = Fake::before(server.port(), rule).await;
        let (cache, primary) = (products(&connect(&fake.url()).await), Primary::of(loaf(1)));
        works(&cache, &primary, answer).await;
        cache.invalidate("p-001").await.unwrap();
    }
}

/// Envoy, for one, knows commands with keys, and few others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_refuses_the_whole_greeting_is_used() {
    let server = Server::start(Flavor::Redis70).await;
    let fake = Fake::before(server.port(), |command| match command {
        "ROLE" | "INFO" | "CLIENT" | "HELLO" => Answer::Fake("-ERR unsupported command\r\n"),
        _ => Answer::Server,
    });
    let fake = fake.await;
    let (cache, primary) = (products(&connect(&fake.url()).await), Primary::of(loaf(1)));
    works(&cache, &primary, "greeting refused").await;
}

/// It is a replica, and can't say so: the first write finds out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_server_that_refuses_role_is_left_after_a_refused_write() {
    let (old, new) = (Server::start(Flavor::Redis70).await, Server::start(Flavor::Valkey91).await);
    let fake = Fake::before(old.port(), |command| match command {
        "ROLE" => Answer::Fake("-ERR unsupported command 'ROLE'\r\n"),
        _ => Answer::Server,
    });
    let fake = fake.await;
    let (cache, primary) = (products(&connect(&fake.url()).await), Primary::of(loaf(1)));
    cache.get("p-001", primary.loader()).await.unwrap();
    assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Hit);
    let replica_of = ["127.0.0.1".to_owned(), free_port().to_string()];
    redis::cmd("REPLICAOF").arg(&replica_of).exec_async(&mut old.client().await).await.unwrap();

    let before = fake.accepted();
    primary.put(loaf(2));
    println!("{}", chain(&cache.invalidate("p-001").await.unwrap_err()));
    assert_eq!(get(&cache, primary.loader()).await.unwrap().unwrap().stock, 2, "the invalidation is pending");
    fake.move_to(new.port());
    until(LIMIT, "writes don't arrive", async || cache.invalidate("p-001").await.is_ok()).await;
    assert!(fake.accepted() > before);
    until(LIMIT, "reads don't hit", async || {
        let found = lookup(&cache, primary.loader()).await.unwrap();
        assert_eq!(found.value.unwrap().stock, 2);
        found.outcome == Outcome::Hit
    })
    .await;
    let mut operator = new.client().await;
    assert!(redis::cmd("EXISTS").arg("cache:billing:product:p-001").query_async::<bool>(&mut operator).await.unwrap());
    assert!(cache.update_field("p-001", Product::FIELDS.stock, 3).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_accepts_no_more_clients_is_used_over_the_connection_that_is_there() {
    for flavor in Flavor::ALL {
        let server = Server::start_with(flavor, &["--requirepass", "secret"]).await;
        let mut operator = as_user(&server, "secret").await;
        // The operator and one more.
        redis::cmd("CONFIG").arg(&["SET", "maxclients", "2"]).exec_async(&mut operator).await.unwrap();
        let (cache, primary) =
            (products(&connect(&with_password(&server.url(), "secret")).await), Primary::of(loaf(1)));
        cache.get("p-001", primary.loader()).await.unwrap();
        assert_eq!(invalidations(&cache).await, 100, "{flavor:?}");

        // An update needs a connection of its own. There are more of them than the breaker's threshold.
        for number in 0..8 {
            match cache.update_field(format!("u-{number}"), Product::FIELDS.stock, 2).await {
                Ok(updated) => assert!(!updated),
                Err(error) => assert!(!chain(&error).contains("password"), "{}", chain(&error)),
            }
        }
        until(LIMIT, "invalidations stay pending", async || cache.pending().is_empty()).await;
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
        for _ in 0..20 {
            assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Hit);
        }
        assert_eq!(invalidations(&cache).await, 100, "{flavor:?}");
        assert!(cache.pending().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_the_server_does_not_ask_for_is_no_error() {
    on_every_server(async |server, _| {
        let backend = connect(&with_password(&server.url(), "secret")).await;
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        works(&cache, &primary, "a password too much").await;
        assert_eq!(invalidations(&cache).await, 100);
    })
    .await;
}

/// As behind a NAT that forgets connections. All timeouts are the defaults, so on a busy machine one round may be late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_over_a_silently_dropped_connection_succeeds() {
    const ROUNDS: usize = 5;
    let server = Server::start(Flavor::Redis70).await;
    for (write, idle) in [
        ("invalidate", Duration::ZERO),
        ("update_field", Duration::ZERO),
        ("second update_field", Duration::ZERO),
        ("invalidate", Duration::from_secs(3)),
        ("second update_field", Duration::from_secs(3)),
    ] {
        let mut failed = Vec::new();
        for _ in 0..ROUNDS {
            let proxy = Proxy::to(server.port()).await;
            let (cache, primary) = (products(&Backend::connect(&proxy.url()).await.unwrap()), Primary::of(loaf(1)));
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
                Err(error) => failed.push(chain(&error)),
                Ok(_) if read.outcome == Outcome::Bypassed => failed.push("the read was bypassed".to_owned()),
                Ok(_) => {}
            }
        }
        assert!(failed.len() <= 1, "{write} after {idle:?}: {} of {ROUNDS} failed: {failed:?}", failed.len());
    }
}

/// In each round the last replies on a connection come in one piece with what ends it.
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
    let (cache, primary) = (products(&backend.connect().await.unwrap()), Primary::of(loaf(1)));
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

#[derive(Debug, Cacheable)]
#[cacheable(namespace = "billing", entity = "order")]
struct Order {
    #[cacheable(id)]
    id: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_struct_is_refused_does_not_disturb_another() {
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

/// Checks that a reply eight times as long takes about eight times as long. One that is copied or parsed from its beginning at
/// each receipt takes 64 times as long.
async fn takes_time_in_proportion(read: impl AsyncFn(usize), [short, long]: [usize; 2]) {
    let mut least = f64::MAX;
    // They alternate, so that a busy machine holds up both.
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_connection_has_the_name_of_the_library() {
    on_every_server(async |server, backend| {
        let cache = builder(&backend).near_cache(NearCache::entries(100)).build().unwrap();
        let primary = Primary::of(loaf(1));
        until(LIMIT, "no tracker is live", async || cache.stats().tracker == TrackerState::Live).await;
        get(&cache, primary.loader()).await.unwrap();
        assert!(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());
        let mut operator = server.client().await;
        redis::cmd("CLIENT").arg(&["SETNAME", "operator"]).exec_async(&mut operator).await.unwrap();
        let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut operator).await.unwrap();
        let ours: Vec<_> = clients.lines().filter(|client| !client.contains(" name=operator ")).collect();
        println!("{ours:#?}");
        assert!(ours.len() >= 3, "one for all steps, one for the update, one for the near cache");
        assert!(ours.iter().all(|client| client.contains(" name=cache-aside ")), "{ours:#?}");
    })
    .await;
}
