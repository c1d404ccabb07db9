//! `redis+sentinel://`: the master is found, and followed through failovers with load running.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cache_aside::{Backend, BackendBuilder, Cache, EntryState, Error, Outcome};
use rand::RngExt;
use testkit::access::Access;
use testkit::sentinel::{Group, NAME, Sentinel};
use testkit::server::{Flavor, Server, free_port};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::fixture::{Primary, Product, builder, get, loaf, lookup, products, settle, until};
use crate::tls::{Authority, TlsServer};

const FLAVORS: [Flavor; 2] = [Flavor::Redis70, Flavor::Valkey91];
/// How soon the service is back once there is a new master.
const SOON: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(20);
const TTL: Duration = Duration::from_secs(3);

async fn connect(url: &str) -> Backend {
    Backend::builder(url).operation_timeout(Duration::from_secs(5)).connect().await.unwrap()
}

async fn lives_a_whole_life(cache: &Cache<Product>) {
    let primary = Primary::of(loaf(1));
    assert_eq!(lookup(cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
    assert_eq!(lookup(cache, primary.loader()).await.unwrap().outcome, Outcome::Hit);
    assert!(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());
    assert_eq!(cache.peek("p-001").await.unwrap().as_deref(), Some(&loaf(2)));
    assert!(cache.invalidate("p-001").await.unwrap());
    assert_eq!(cache.peek("p-001").await.unwrap(), None);
}

async fn fails(builder: BackendBuilder, said: &[&str]) {
    let began = Instant::now();
    let error = builder.connect().await.unwrap_err();
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    let text = format!("{error}: {cause}");
    println!("{:?}: {text}", began.elapsed());
    for part in said {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
}

/// Readers and writers, and what they saw.
struct Load {
    table: Arc<Table>,
    tasks: Vec<JoinHandle<()>>,
}

struct Table {
    cache: Cache<Product>,
    primary: Primary,
    /// Of each record, the version that every get sees at least that starts now.
    floors: Vec<AtomicU32>,
    stop: AtomicBool,
    /// How late this machine was at the worst.
    lag: Mutex<Duration>,
    reads: Mutex<Vec<Read>>,
    writes: Mutex<Vec<(Instant, bool)>>,
}

struct Read {
    began: Instant,
    outcome: Outcome,
    is_stale: bool,
}

impl Load {
    const READERS: usize = 50;
    const WRITERS: usize = 4;
    const RECORDS: usize = 20;

    fn on(cache: &Cache<Product>) -> Self {
        let primary = Primary::default().with_latency(Duration::from_millis(2));
        for number in 0..Self::RECORDS {
            primary.put(Product { id: number.to_string(), ..loaf(0) });
        }
        let table = Arc::new(Table {
            cache: cache.clone(),
            primary,
            floors: (0..Self::RECORDS).map(|_| AtomicU32::new(0)).collect(),
            stop: AtomicBool::new(false),
            lag: Mutex::default(),
            reads: Mutex::default(),
            writes: Mutex::default(),
        });
        let (reading, writing) = (table.clone(), table.clone());
        let readers = (0..Self::READERS).map(move |_| tokio::spawn(read_on(reading.clone())));
        let writers = (0..Self::WRITERS).map(move |writer| tokio::spawn(write_on(writing.clone(), writer)));
        let lag = tokio::spawn(measure_lag(table.clone()));
        Self { tasks: readers.chain(writers).chain([lag]).collect(), table }
    }

    /// Ends it; no task has failed.
    async fn stop(self) -> Arc<Table> {
        self.table.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.table
    }
}

async fn read_on(table: Arc<Table>) {
    while !table.stop.load(Ordering::SeqCst) {
        let number = rand::rng().random_range(0..Load::RECORDS);
        let (floor, began) = (table.floors[number].load(Ordering::SeqCst), Instant::now());
        let found = table.cache.lookup(number.to_string(), table.primary.loader()).await.unwrap();
        let is_stale = found.value.unwrap().stock < floor;
        table.reads.lock().unwrap().push(Read { began, outcome: found.outcome, is_stale });
        pause(10).await;
    }
}

/// Each writer has records of its own.
async fn write_on(table: Arc<Table>, writer: usize) {
    let numbers = (0..Load::RECORDS).filter(|number| number % Load::WRITERS == writer);
    for (version, number) in (1..).zip(numbers.cycle()) {
        if table.stop.load(Ordering::SeqCst) {
            return;
        }
        table.primary.put(Product { id: number.to_string(), ..loaf(version) });
        let began = Instant::now();
        let applied = table.cache.invalidate(number.to_string()).await.is_ok();
        // A failed one counts too: this process reads around the entry until it is applied.
        table.floors[number].store(version, Ordering::SeqCst);
        table.writes.lock().unwrap().push((began, applied));
        pause(20).await;
    }
}

async fn measure_lag(table: Arc<Table>) {
    const NAP: Duration = Duration::from_millis(10);
    while !table.stop.load(Ordering::SeqCst) {
        let began = Instant::now();
        sleep(NAP).await;
        let mut lag = table.lag.lock().unwrap();
        *lag = lag.max(began.elapsed() - NAP);
    }
}

async fn pause(millis: u64) {
    let pause = rand::rng().random_range(0..millis * 2000);
    sleep(Duration::from_micros(pause)).await;
}

impl Table {
    /// Checks that all was well until `down`, and again soon after `up`.
    fn check(&self, down: Instant, up: Instant) {
        let (reads, writes) = (self.reads.lock().unwrap(), self.writes.lock().unwrap());
        let bypassed: Vec<_> =
            reads.iter().filter(|read| read.outcome == Outcome::Bypassed).map(|read| read.began).collect();
        let failed: Vec<_> = writes.iter().filter(|(_, applied)| !applied).map(|(began, _)| *began).collect();
        let last = |began: &[Instant]| began.iter().max().map_or(Duration::ZERO, |began| began.duration_since(up));
        println!(
            "  {} of {} reads bypassed, {} of {} writes failed; promoted after {:?}, and after that the last such read {:?}, \
             the last such write {:?}",
            bypassed.len(),
            reads.len(),
            failed.len(),
            writes.len(),
            up - down,
            last(&bypassed),
            last(&failed)
        );
        let soon = SOON + *self.lag.lock().unwrap() * 5;
        assert!(last(&bypassed) < soon && last(&failed) < soon, "not back within {soon:?} after the promotion");
        let was_under_way = Duration::from_millis(300);
        assert!(bypassed.iter().chain(&failed).all(|began| *began + was_under_way >= down), "failures before");
        let stale: Vec<_> = reads.iter().filter(|read| read.is_stale).map(|read| read.began).collect();
        println!("  {} stale reads, after a failover that lost writes", stale.len());
        // An invalidation that the old master alone has heard of is made up for by the lifetime.
        let explained = |began: Instant| began >= down && began <= up + SOON + TTL;
        assert!(stale.iter().all(|began| explained(*began)), "stale reads that no failover explains");
    }
}

async fn cache_under_load(group: &Group) -> (Cache<Product>, Load) {
    let backend = Backend::connect(&group.url()).await.unwrap();
    let cache = builder(&backend).ttl(TTL).build().unwrap();
    let load = Load::on(&cache);
    sleep(Duration::from_millis(500)).await;
    (cache, load)
}

async fn stored_at(server: &Server, id: &str) -> bool {
    let mut client = server.client().await;
    redis::cmd("EXISTS").arg(format!("cache:billing:product:{id}")).query_async(&mut client).await.unwrap()
}

#[tokio::test]
async fn an_entry_lives_its_whole_life_at_the_master() {
    for flavor in Flavor::ALL {
        let group = Group::start(flavor).await;
        let backend = connect(&group.url()).await;
        assert_eq!(backend.to_string(), group.url());
        let cache = products(&backend);
        lives_a_whole_life(&cache).await;
        get(&cache, Primary::of(loaf(1)).loader()).await.unwrap();
        assert!(stored_at(&group.servers[0], "p-001").await);

        let in_db = products(&connect(&format!("{}/1?protocol=resp2", group.url())).await);
        lives_a_whole_life(&in_db).await;
        assert_eq!(
            lookup(&cache, Primary::default().loader()).await.unwrap().outcome,
            Outcome::Hit,
            "another database"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_is_left_for_the_one_that_is_promoted() {
    for flavor in FLAVORS {
        println!("on {flavor:?}");
        let mut group = Group::start(flavor).await;
        let (cache, load) = cache_under_load(&group).await;
        let down = Instant::now();
        group.servers[0].kill().await;
        let (promoted, up) = group.promotion_besides(0).await;
        sleep(SOON).await;

        // It says that it is a master, until the sentinels demote it.
        group.servers[0].restart().await;
        sleep(Duration::from_millis(500)).await;
        assert_eq!(reads_at(&group.servers[0]).await, None, "nobody reads from the one that came back");
        group.demotion_of(0).await;
        sleep(Duration::from_millis(500)).await;
        let table = load.stop().await;
        table.check(down, up);
        until(LIMIT, "invalidations still wait", async || cache.pending().is_empty()).await;
        sleep(TTL).await;
        for number in 0..Load::RECORDS {
            let found = cache.get(number.to_string(), table.primary.loader()).await.unwrap().unwrap();
            assert!(found.stock >= table.floors[number].load(Ordering::SeqCst));
        }
        cache.get("p-001", Primary::of(loaf(1)).loader()).await.unwrap();
        assert!(stored_at(&group.servers[promoted], "p-001").await);
    }
}

/// It goes on as a master until the sentinels demote it, some ten seconds later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_lives_is_left_for_the_one_that_is_promoted() {
    for (flavor, args) in [
        (Flavor::Redis70, &[][..]),
        (Flavor::Valkey91, &[]),
        (Flavor::Redis70, &["--min-replicas-to-write", "1"]),
        (Flavor::Valkey91, &["--min-replicas-to-write", "1"]),
    ] {
        println!("on {flavor:?} {args:?}");
        let group = Group::start_with(flavor, args, "").await;
        let (cache, load) = cache_under_load(&group).await;
        let primary = Primary::of(loaf(1));
        cache.get("p-001", primary.loader()).await.unwrap();
        let down = Instant::now();
        group.fail_over().await;
        let (promoted, up) = group.promotion_besides(0).await;
        sleep(SOON.saturating_sub(up.elapsed())).await;
        let before = reads_at(&group.servers[0]).await;
        sleep(Duration::from_millis(500)).await;
        assert_eq!(reads_at(&group.servers[0]).await, before, "the old master is still read from");
        load.stop().await.check(down, up);

        cache.refresh("p-001", primary.loader()).await.unwrap();
        assert!(cache.update_field("p-001", Product::FIELDS.stock, 7).await.unwrap());
        assert_eq!(cache.peek("p-001").await.unwrap().unwrap().stock, 7);
        let there = products(&connect(&group.servers[promoted].url()).await);
        assert_eq!(there.peek("p-001").await.unwrap().unwrap().stock, 7);
        assert!(cache.invalidate("p-001").await.unwrap());
        assert_eq!(there.inspect("p-001").await.unwrap().state, EntryState::Missing);
        group.demotion_of(0).await;
        lives_a_whole_life(&cache).await;
    }
}

async fn reads_at(server: &Server) -> Option<u64> {
    server.calls().await.get("hmget").copied()
}

/// No connection is cut here: it has to be seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_was_made_a_replica_by_hand_is_not_read_from() {
    for flavor in FLAVORS {
        let group = Group::start(flavor).await;
        let cache = products(&connect(&group.url()).await);
        cache.get("p-001", Primary::of(loaf(1)).loader()).await.unwrap();
        let mut operator = group.servers[0].client().await;
        let port = group.servers[1].port().to_string();
        redis::cmd("REPLICAOF").arg("127.0.0.1").arg(port).exec_async(&mut operator).await.unwrap();
        sleep(SOON).await;
        let error = cache.peek("p-001").await.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("says that it is a replica"), "{cause}");
        redis::cmd("REPLICAOF").arg("NO").arg("ONE").exec_async(&mut operator).await.unwrap();
        until(LIMIT, "it is used again", async || cache.peek("p-001").await.is_ok()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_master_is_left_for_the_one_that_is_promoted() {
    for flavor in FLAVORS {
        println!("on {flavor:?}");
        let group = Group::start(flavor).await;
        let (cache, load) = cache_under_load(&group).await;
        let down = Instant::now();
        group.servers[0].freeze();
        let (_, up) = group.promotion_besides(0).await;
        sleep(SOON).await;
        group.servers[0].thaw();
        sleep(SOON).await;
        load.stop().await.check(down, up);
        until(LIMIT, "invalidations still wait", async || cache.pending().is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_sentinels_the_known_master_serves_on() {
    for flavor in FLAVORS {
        let mut group = Group::start(flavor).await;
        let cache = products(&connect(&group.url()).await);
        let (url, waits) = (group.url(), Duration::from_millis(500));
        group.sentinels.iter_mut().for_each(Sentinel::kill);
        let began = Instant::now();
        while began.elapsed() < SOON {
            lives_a_whole_life(&cache).await;
        }
        let late = Backend::builder(&url).connect_timeout(waits);
        fails(late, &["check that the sentinels are up and the URL right", "refused", &url]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sentinel_is_enough_and_none_at_the_start_is_no_obstacle() {
    for flavor in FLAVORS {
        let mut group = Group::start(flavor).await;
        let url = group.url();
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = silent.local_addr().unwrap();
        for sentinel in &mut group.sentinels[1..] {
            sentinel.kill();
        }
        let began = Instant::now();
        lives_a_whole_life(&products(&Backend::connect(&url).await.unwrap())).await;
        println!("with one of three sentinels: {:?}", began.elapsed());
        let with_a_silent_one = url.replace("://", &format!("://{silent},"));
        lives_a_whole_life(&products(&Backend::connect(&with_a_silent_one).await.unwrap())).await;

        let port = free_port();
        let lazy = Backend::connect_lazy(&format!("redis+sentinel://127.0.0.1:{port}/{NAME}")).unwrap();
        let (cache, primary) = (products(&lazy), Primary::of(loaf(1)));
        for _ in 0..10 {
            assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Bypassed);
        }
        cache.invalidate("p-001").await.unwrap_err();
        let _sentinel = group.sentinel_at(flavor, port).await;
        until(LIMIT, "it connects", async || lookup(&cache, primary.loader()).await.unwrap().outcome == Outcome::Hit)
            .await;
        assert!(cache.pending().is_empty());
    }
}

#[tokio::test]
async fn what_most_sentinels_say_counts() {
    let (here, there) = (Group::start(Flavor::Redis70).await, Group::start(Flavor::Valkey91).await);
    let place = |sentinel: &Sentinel| format!("127.0.0.1:{}", sentinel.port());
    let [a, b, c] = [0, 1, 2].map(|number| place(&here.sentinels[number]));
    let [x, y, z] = [0, 1, 2].map(|number| place(&there.sentinels[number]));
    for (places, group) in
        [([&a, &b, &x], &here), ([&x, &a, &c], &here), ([&x, &y, &a], &there), ([&a, &y, &z], &there)]
    {
        let [first, second, third] = places;
        let cache = products(&connect(&format!("redis+sentinel://{first},{second},{third}/{NAME}")).await);
        get(&cache, Primary::of(loaf(1)).loader()).await.unwrap();
        assert!(stored_at(&group.servers[0], "p-001").await);
        let moved = group.servers[0].connections().await;
        sleep(SOON).await;
        assert_eq!(group.servers[0].connections().await, moved, "it stays there");
        assert!(cache.invalidate("p-001").await.unwrap());
    }
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    for flavor in FLAVORS {
        let mut group = Group::start(flavor).await;
        let places = group.url();
        let another = Backend::builder(&places.replace(NAME, "yourmaster"));
        fails(another, &["the sentinels know no master `yourmaster`", "as SENTINEL MASTERS shows it"]).await;
        let no_sentinel = format!("redis+sentinel://127.0.0.1:{}/{NAME}", group.servers[0].port());
        fails(Backend::builder(&no_sentinel), &["name the sentinels in the URL: this is a server"]).await;
        let tls = Backend::builder(&places.replace("redis", "rediss")).connect_timeout(Duration::from_secs(5));
        fails(tls, &["rediss+sentinel:// for TLS and redis+sentinel:// without"]).await;

        group.sentinels[1].kill();
        group.sentinels[2].kill();
        group.servers[0].kill().await;
        let port = group.servers[0].port();
        fails(
            Backend::builder(&places),
            &[&format!("127.0.0.1:{port}, the master by the sentinels"), "SENTINEL CKQUORUM"],
        )
        .await;
    }
}

#[tokio::test]
async fn each_password_goes_where_it_belongs() {
    let access = Access::documented();
    for flavor in FLAVORS {
        let group = Group::start_with(
            flavor,
            &[],
            "requirepass operators\nsentinel sentinel-pass operators\n\
             user asks on >let%me@in reset on >let%me@in +sentinel|get-master-addr-by-name",
        )
        .await;
        access.grant(&group.servers[0]).await;
        let at_sentinels = |query: &str| Backend::builder(&format!("{}{query}", access.url(&group.url())));
        let wanted = ["put the right ?sentinel_user=..&sentinel_password=.. into the URL", "the sentinel 127.0.0.1:"];
        fails(at_sentinels(""), &wanted).await;
        fails(at_sentinels("?sentinel_password=wrong"), &wanted).await;
        fails(at_sentinels("?sentinel_user=asks&sentinel_password=wrong"), &wanted).await;
        at_sentinels("?sentinel_password=operators").connect().await.unwrap();
        let backend = at_sentinels("?sentinel_user=asks&sentinel_password=let%25me%40in").connect().await.unwrap();
        lives_a_whole_life(&products(&backend)).await;

        let right = "?sentinel_password=operators";
        fails(Backend::builder(&(group.url_as("billing-service:wrong@") + right)), &["the right user and password"])
            .await;
        access.without("+role").grant(&group.servers[0]).await;
        // A master that may not tell its role is used all the same: the sentinels say what it is.
        lives_a_whole_life(&products(&at_sentinels(right).connect().await.unwrap())).await;
    }
}

/// The master is at a host that its certificate names, if the sentinels say it.
#[tokio::test]
async fn certificates_are_for_the_sentinels_and_their_master() {
    let authority = Authority::new("own");
    let master = TlsServer::start(&authority, "yes").await;
    let identity = authority.certify("app", &[]);
    let connect_to = |port: u16| {
        let builder = Backend::builder(&format!("rediss+sentinel://localhost:{port}/{NAME}"));
        let builder = builder.operation_timeout(Duration::from_secs(5)).tls_root_certificates(&*authority.certificate);
        builder.tls_client_certificate(&*identity.certificate, &*identity.key)
    };
    let ports = [free_port(), free_port()];
    let lines = |port: u16| format!("port 0\ntls-port {port}\ntls-replication yes\n{}", master.config());
    let names_it = lines(ports[0]) + "\nsentinel resolve-hostnames yes\nsentinel announce-hostnames yes";
    let _by_name = Sentinel::start(Flavor::Redis70, ports[0], &format!("localhost {}", master.port()), &names_it);
    let _by_address =
        Sentinel::start(Flavor::Redis70, ports[1], &format!("127.0.0.1 {}", master.port()), &lines(ports[1]));
    until(LIMIT, "the sentinel answers", async || connect_to(ports[0]).connect().await.is_ok()).await;
    lives_a_whole_life(&products(&connect_to(ports[0]).connect().await.unwrap())).await;
    fails(connect_to(ports[1]), &["have the servers announce hosts", "their certificates name", "127.0.0.1"]).await;

    let plain = Backend::builder(&format!("redis+sentinel://localhost:{}/{NAME}", ports[0]));
    fails(plain, &["rediss+sentinel:// for TLS and redis+sentinel:// without"]).await;
}

#[tokio::test]
async fn urls_that_make_no_sense_are_refused() {
    for (url, said) in [
        ("redis+sentinel://host:26379", "the name of the master is missing"),
        ("redis+sentinel://host:26379/", "the name of the master is missing"),
        ("redis+sentinel:///mymaster", "a host is missing"),
        ("redis+sentinel://host,/mymaster", "a host is missing"),
        ("redis+sentinel://host:secret/mymaster", "makes no sense"),
        ("redis+sentinel://host/my%20master", "only letters, digits"),
        ("redis+sentinel://host/mymaster/first", "Invalid database number"),
        ("redis+sentinel://host/mymaster/0/1", "Invalid database number"),
        ("redis+sentinel://host/mymaster?sentinel_user=secret", "sentinel_user needs a sentinel_password"),
        ("redis+sentinel://host/mymaster?password=secret", "it may have protocol, sentinel_user and sentinel_password"),
        ("redis+sentinel://host/mymaster?protocol=secret", "makes no sense"),
        ("redis+sentinel://app:a/secret@host/mymaster", "in users and passwords write `/`"),
        ("rediss+sentinel://host/mymaster#insecure", "nothing may follow a `#`"),
    ] {
        let error = Backend::connect_lazy(url).unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{error:?}");
        assert!(error.to_string().contains(said), "no `{said}` in: {error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    let backend =
        Backend::connect_lazy("redis+sentinel://u:secret@a,[::1],b:5/mymaster?sentinel_password=secret").unwrap();
    assert_eq!(backend.to_string(), "redis+sentinel://a:26379,[::1]:26379,b:5/mymaster");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_when_the_backend_is_dropped() {
    let group = Group::start(Flavor::Redis70).await;
    settle().await;
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let (before, connections) = (alive(), group.servers[0].connections().await);
    let cache = products(&connect(&group.url()).await);
    lives_a_whole_life(&cache).await;
    assert!(alive() > before);
    drop(cache);
    until(LIMIT, "a task or a connection is left", async || {
        alive() == before && group.servers[0].connections().await == connections
    })
    .await;
}

#[test]
fn the_master_is_followed_on_another_runtime_than_the_first() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let group = first.block_on(Group::start(Flavor::Redis70));
    let cache = products(&first.block_on(connect(&group.url())));
    first.block_on(lives_a_whole_life(&cache));
    drop(first);
    second.block_on(async {
        group.fail_over().await;
        group.promotion_besides(0).await;
        until(LIMIT, "it is used again", async || cache.peek("p-001").await.is_ok()).await;
        lives_a_whole_life(&cache).await;
    });
}
