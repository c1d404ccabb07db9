//! Host names and addresses that lead to more than one server, or to none.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use cache_aside::{Backend, BackendBuilder, Cache, NearCache, Outcome};
use testkit::hosts::{Hosts, NAME, with_hosts};
use testkit::proxy::Proxy;
use testkit::server::{Flavor, Mistake, Server, free_port};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::fixture::{Primary, Product, builder, connect, get, loaf, lookup, products, until};

const LIMIT: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(600);
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// Two primaries on the same port at two addresses.
struct Pair {
    port: u16,
    _servers: [Server; 2],
}

impl Pair {
    async fn start() -> Self {
        loop {
            let port = free_port();
            let Some(first) = start_at(Flavor::Redis70, FIRST, port).await else { continue };
            let Some(second) = start_at(Flavor::Valkey91, SECOND, port).await else { continue };
            return Self { port, _servers: [first, second] };
        }
    }

    fn url(&self) -> String {
        format!("redis://{NAME}:{}", self.port)
    }

    /// A cache that always uses the server at this address, as another process might.
    async fn cache_at(&self, address: Ipv4Addr) -> Cache<Product> {
        products(&connect(&format!("redis://{address}:{}", self.port)).await)
    }
}

/// Starts a server at this address, if the port is free there.
async fn start_at(flavor: Flavor, address: Ipv4Addr, port: u16) -> Option<Server> {
    match Server::try_start(flavor, port, &["--bind", &address.to_string()]).await {
        Ok(server) => Some(server),
        Err(Mistake::PortTaken(_)) => None,
        Err(mistake) => panic!("{mistake}"),
    }
}

/// Accepts connections at an address and leaves them in the queue until it is full: after that, connecting gets no
/// answer, as with a host that is down.
async fn silent_at(address: Ipv4Addr, port: u16) -> impl Sized {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((address, port).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let mut waiting = Vec::new();
    while let Ok(connected) = timeout(Duration::from_millis(500), TcpStream::connect((address, port))).await {
        waiting.push(connected.unwrap());
    }
    (listener, waiting)
}

/// With deadlines that a busy machine can keep.
fn patient(url: &str) -> BackendBuilder {
    Backend::builder(url).operation_timeout(Duration::from_secs(5)).heartbeat_timeout(Duration::from_secs(5))
}

fn near(backend: &Backend) -> Cache<Product> {
    let settings = NearCache::entries(100).max_age(LONG);
    builder(backend).ttl(LONG).jitter(0.0).near_cache(settings).build().unwrap()
}

async fn outcome(cache: &Cache<Product>, primary: &Primary) -> Outcome {
    lookup(cache, primary.loader()).await.unwrap().outcome
}

async fn stock(cache: &Cache<Product>, primary: &Primary) -> u32 {
    get(cache, primary.loader()).await.unwrap().unwrap().stock
}

/// Checks that every get returns the primary's record, with this stock.
async fn nothing_older(cache: &Cache<Product>, primary: &Primary, version: u32, what: &str) {
    for get in 0..20 {
        assert_eq!(stock(cache, primary).await, version, "get {get} after {what}");
    }
}

#[test]
fn a_name_with_an_address_that_does_not_answer_is_reached_at_the_other() {
    with_hosts(async |hosts: Hosts| {
        let (port, server) = loop {
            let port = free_port();
            if let Some(server) = start_at(Flavor::Redis70, SECOND, port).await {
                break (port, server);
            }
        };
        let _silent = silent_at(FIRST, port).await;
        for order in [[FIRST, SECOND], [SECOND, FIRST]] {
            hosts.resolve_to(&order);
            let (mut connected, mut used) = (Duration::MAX, Duration::MAX);
            for _ in 0..3 {
                let began = Instant::now();
                let backend = patient(&format!("redis://{NAME}:{port}")).connect().await.unwrap();
                connected = connected.min(began.elapsed());
                let cache = builder(&backend).update_timeout(LIMIT).build().unwrap();
                let primary = Primary::of(loaf(1));
                let began = Instant::now();
                assert_eq!(outcome(&cache, &primary).await, Outcome::Loaded);
                for _ in 0..20 {
                    assert_eq!(outcome(&cache, &primary).await, Outcome::Hit);
                }
                assert!(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());
                for _ in 0..100 {
                    cache.invalidate("p-001").await.unwrap();
                }
                used = used.min(began.elapsed());
            }
            println!("{order:?}: connected within {connected:?}, used for {used:?}");
            assert!(connected < Duration::from_secs(1), "{order:?}: {connected:?}");
            assert!(used < Duration::from_secs(10), "{order:?}: {used:?}");
        }
        drop(server);
    });
}

/// Each server is a primary with its own entry. The shared connection is not lost when the name moves.
#[test]
fn a_write_after_a_name_has_moved_goes_where_reads_go() {
    with_hosts(async |hosts: Hosts| {
        let pair = Pair::start().await;
        let (at_first, at_second) = (pair.cache_at(FIRST).await, pair.cache_at(SECOND).await);
        for write in ["invalidate", "update_field", "modify"] {
            hosts.resolve_to(&[FIRST]);
            let primary = Primary::of(loaf(1));
            for cache in [&at_first, &at_second] {
                cache.invalidate("p-001").await.unwrap();
                cache.get("p-001", primary.loader()).await.unwrap();
            }
            let cache = products(&patient(&pair.url()).connect_lazy().unwrap());
            for _ in 0..10 {
                assert_eq!(outcome(&cache, &primary).await, Outcome::Hit);
            }
            hosts.resolve_to(&[SECOND]);
            primary.put(loaf(2));
            match write {
                "invalidate" => drop(cache.invalidate("p-001").await.unwrap()),
                "update_field" => drop(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap()),
                _ => drop(cache.modify("p-001", |product| product.stock = 2).await.unwrap()),
            }
            nothing_older(&cache, &primary, 2, write).await;
        }
    });
}

#[test]
fn a_near_cache_that_starts_after_a_name_has_moved_gets_messages_from_the_server_that_is_read() {
    with_hosts(async |hosts: Hosts| {
        let pair = Pair::start().await;
        hosts.resolve_to(&[FIRST]);
        let (at_first, at_second) = (pair.cache_at(FIRST).await, pair.cache_at(SECOND).await);
        let backend = patient(&pair.url()).connect_lazy().unwrap();
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        cache.get("p-001", primary.loader()).await.unwrap();
        assert_eq!(outcome(&cache, &primary).await, Outcome::Hit);
        hosts.resolve_to(&[SECOND]);
        let cache = near(&backend);
        until(LIMIT, "nothing is kept", async || outcome(&cache, &primary).await == Outcome::NearHit).await;
        primary.put(loaf(2));
        for elsewhere in [&at_first, &at_second] {
            elsewhere.invalidate("p-001").await.unwrap();
        }
        until(LIMIT, "the old record is kept", async || stock(&cache, &primary).await == 2).await;
    });
}

/// One address that leads to two servers, such as a virtual address or a TCP proxy. Existing connections continue.
struct Moved {
    old: Server,
    new: Server,
    _proxy: Proxy,
    backend: Backend,
    cache: Cache<Product>,
    primary: Primary,
}

impl Moved {
    /// Hits at the old server, and then moves the address.
    async fn after_hits() -> Self {
        let (old, new) = (Server::start(Flavor::Redis70).await, Server::start(Flavor::Valkey91).await);
        let proxy = Proxy::to(old.port()).await;
        let backend = patient(&proxy.url()).connect().await.unwrap();
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        cache.get("p-001", primary.loader()).await.unwrap();
        for _ in 0..10 {
            assert_eq!(outcome(&cache, &primary).await, Outcome::Hit);
        }
        proxy.move_to(new.port());
        Self { old, new, _proxy: proxy, backend, cache, primary }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_never_succeeds_at_another_server_than_the_one_that_is_read() {
    for write in ["update_field", "modify"] {
        for has_entry in [false, true] {
            let moved = Moved::after_hits().await;
            let (cache, primary) = (&moved.cache, &moved.primary);
            if has_entry {
                products(&connect(&moved.new.url()).await).get("p-001", primary.loader()).await.unwrap();
            }
            primary.put(loaf(2));
            let written = match write {
                "update_field" => cache.update_field("p-001", Product::FIELDS.stock, 2).await.map(drop),
                _ => cache.modify("p-001", |product| product.stock = 2).await.map(drop),
            };
            println!("{write}: {written:?}");
            nothing_older(cache, primary, 2, write).await;
            until(LIMIT, "the cache is not used again", async || outcome(cache, primary).await == Outcome::Hit).await;
            nothing_older(cache, primary, 2, write).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_near_cache_gets_messages_only_from_the_server_that_is_read() {
    let moved = Moved::after_hits().await;
    let (cache, primary) = (near(&moved.backend), &moved.primary);
    until(LIMIT, "nothing is kept", async || outcome(&cache, primary).await == Outcome::NearHit).await;
    primary.put(loaf(2));
    for server in [&moved.old, &moved.new] {
        products(&connect(&server.url()).await).invalidate("p-001").await.unwrap();
    }
    until(LIMIT, "the old record is kept", async || stock(&cache, primary).await == 2).await;
}
