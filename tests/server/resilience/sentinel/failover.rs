//! Failovers under load: no read fails, and soon nothing uses the old master.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cache_aside::{Backend, Cache, EntryState, Outcome};
use rand::RngExt;
use testkit::sentinel::Group;
use testkit::server::{Flavor, Server};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::{FLAVORS, LIMIT, SOON, connect, stored_at};
use crate::support::fixture::{Primary, Product, builder, lives_a_whole_life, loaf, products, until};

const TTL: Duration = Duration::from_secs(3);
/// So that a machine that delays the server is no outage.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(1);

/// Readers and writers, and their results.
struct Load {
    table: Arc<Table>,
    tasks: Vec<JoinHandle<()>>,
}

struct Table {
    cache: Cache<Product>,
    primary: Primary,
    /// For each record, the version that a get which starts now has to see at least.
    floors: Vec<AtomicU32>,
    stop: AtomicBool,
    /// The longest delay of this machine.
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
        // A failed write counts too: this process reads around the entry until it is applied.
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
    /// How soon after the promotion everything works again, on this machine.
    fn soon(&self) -> Duration {
        SOON + *self.lag.lock().unwrap() * 10
    }

    /// Checks that everything worked until `down`, and again soon after `up`.
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
        let soon = self.soon();
        assert!(last(&bypassed) < soon && last(&failed) < soon, "not back within {soon:?} after the promotion");
        let was_under_way = OPERATION_TIMEOUT + Duration::from_millis(100);
        assert!(bypassed.iter().chain(&failed).all(|began| *began + was_under_way >= down), "failures before");
        // The failover may have lost writes, but all of them are of this process.
        assert_eq!(reads.iter().filter(|read| read.is_stale).count(), 0, "stale reads");
    }
}

async fn cache_under_load(group: &Group) -> (Cache<Product>, Load) {
    let backend = Backend::builder(&group.url()).operation_timeout(OPERATION_TIMEOUT).connect().await.unwrap();
    let cache = builder(&backend).ttl(TTL).update_timeout(LIMIT).build().unwrap();
    let load = Load::on(&cache);
    // Longer than a call that fails can have been under way.
    sleep(OPERATION_TIMEOUT + Duration::from_millis(500)).await;
    (cache, load)
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
        // A delay of the new master is no reason to promote yet another.
        group.be_patient(LIMIT).await;
        sleep(SOON).await;

        // It remains a master until the sentinels demote it.
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
        until(LIMIT, "it is not stored at the new master", async || {
            cache.get("p-001", Primary::of(loaf(1)).loader()).await.unwrap();
            stored_at(&group.servers[promoted], "p-001").await
        })
        .await;
    }
}

/// It continues as a master until the sentinels demote it, some ten seconds later.
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
        group.be_patient(LIMIT).await;
        let (cache, load) = cache_under_load(&group).await;
        let primary = Primary::of(loaf(1));
        cache.get("p-001", primary.loader()).await.unwrap();
        let down = Instant::now();
        group.fail_over().await;
        let (promoted, up) = group.promotion_besides(0).await;
        sleep(load.table.soon().saturating_sub(up.elapsed())).await;
        let before = reads_at(&group.servers[0]).await;
        sleep(Duration::from_millis(500)).await;
        assert_eq!(reads_at(&group.servers[0]).await, before, "the old master is still read from");
        load.stop().await.check(down, up);
        until(LIMIT, "invalidations still wait", async || cache.pending().is_empty()).await;

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

/// No connection is cut here: the library has to notice by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_was_made_a_replica_by_hand_is_not_read_from() {
    for flavor in FLAVORS {
        let group = Group::start(flavor).await;
        let cache = products(&connect(&group.url()).await);
        cache.get("p-001", Primary::of(loaf(1)).loader()).await.unwrap();
        let mut operator = group.servers[0].client().await;
        let port = group.servers[1].port().to_string();
        redis::cmd("REPLICAOF").arg("127.0.0.1").arg(port).exec_async(&mut operator).await.unwrap();
        until(SOON * 2, "it is still read from", async || cache.peek("p-001").await.is_err()).await;
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
        group.be_patient(LIMIT).await;
        sleep(SOON).await;
        group.servers[0].thaw();
        sleep(SOON).await;
        load.stop().await.check(down, up);
        until(LIMIT, "invalidations still wait", async || cache.pending().is_empty()).await;
    }
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
