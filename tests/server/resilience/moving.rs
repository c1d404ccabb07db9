//! Slots that move while processes read and write: each record is compared with the primary.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cache_aside::{Cache, Outcome};
use testkit::cluster::{Cluster, Moves, ask};
use testkit::server::Flavor;
use tokio::time::sleep;

use crate::near::{BOUND, bounded, near};
use crate::support::fixture::{Primary, Product, builder, connect, get, load_at_gate, loaf, lookup, products, until};

const KEY: &str = "cache:billing:product:p-001";
const MOVES: u32 = 5;
const LIMIT: Duration = Duration::from_secs(20);

/// What has been written: the version, and when each of the last ones was.
#[derive(Default)]
struct Written {
    version: AtomicU32,
    since: Mutex<VecDeque<(Instant, u32)>>,
}

impl Written {
    fn note(&self, version: u32) {
        self.since.lock().unwrap().push_back((Instant::now(), version));
        self.version.store(version, Ordering::SeqCst);
    }

    fn version(&self) -> u32 {
        self.version.load(Ordering::SeqCst)
    }

    /// The version as it was before so much time.
    fn before(&self, now: Instant, age: Duration) -> u32 {
        let since = self.since.lock().unwrap();
        since.iter().rev().find(|(at, _)| *at + age <= now).map_or(0, |(_, version)| *version)
    }
}

/// Reads until `stopped`, and returns how many of its gets were hits of this kind. No record is older than `at_least`.
async fn reads(
    cache: &Cache<Product>,
    primary: &Primary,
    stopped: &AtomicBool,
    kind: Outcome,
    at_least: impl Fn() -> u32,
) -> u32 {
    let mut hits = 0;
    while !stopped.load(Ordering::SeqCst) {
        let at_least = at_least();
        let found = lookup(cache, primary.loader()).await.unwrap();
        let stock = found.value.unwrap().stock;
        assert!(stock >= at_least, "{kind:?}: {stock} after {at_least}, by {:?}", found.outcome);
        hits += u32::from(found.outcome == kind);
        sleep(Duration::from_micros(200)).await;
    }
    hits
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_record_is_older_than_promised_while_its_slot_moves() {
    for (flavor, moves) in Moves::ON {
        println!("on a cluster of {flavor:?}, whose slots move {moves:?}");
        let mut cluster = Cluster::start_moving(flavor, moves).await;
        let added = cluster.add_primary(flavor).await;
        let (primary, written, stopped) = (Primary::of(loaf(0)), Written::default(), AtomicBool::new(false));
        let [writer, reader] = [connect(&cluster.url()).await, connect(&cluster.url()).await];
        let (writer, reader) = (builder(&writer).update_timeout(LIMIT).build().unwrap(), products(&reader));
        let near_reader = near(&bounded(&cluster.url()).await);
        let write = async {
            for version in (1..).take_while(|_| !stopped.load(Ordering::SeqCst)) {
                primary.put(loaf(version));
                if version % 3 == 0 {
                    writer.update_field("p-001", Product::FIELDS.stock, version).await.unwrap();
                } else {
                    writer.invalidate("p-001").await.unwrap();
                }
                written.note(version);
                sleep(Duration::from_millis(3)).await;
            }
        };
        let move_slots = async {
            for _ in 1..MOVES {
                cluster.move_slot(KEY).await;
                sleep(Duration::from_millis(100)).await;
            }
            let way = cluster.open_to(KEY, added).await;
            cluster.close(KEY, way).await;
            sleep(2 * BOUND).await;
            stopped.store(true, Ordering::SeqCst);
        };
        let (hits, near_hits, ..) = tokio::join!(
            reads(&reader, &primary, &stopped, Outcome::Hit, || written.version()),
            reads(&near_reader, &primary, &stopped, Outcome::NearHit, || written.before(Instant::now(), BOUND)),
            write,
            move_slots,
        );
        println!("{} writes, {hits} hits, {near_hits} near hits", written.version());
        assert!(hits > 0 && near_hits > 0);
        assert_eq!(cluster.owner(KEY).await, added);
    }
}

/// Where keys move one by one it fails while the slot is open; where a slot changes hands at once, only when that is in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clear_that_succeeds_while_a_slot_moves_has_left_nothing_old() {
    const MOVES: u64 = 8;
    for (flavor, moves) in Moves::ON {
        let cluster = Cluster::start_moving(flavor, moves).await;
        let [here, there] = [connect(&cluster.url()).await, connect(&cluster.url()).await];
        let (here, there, primary) = (products(&here), products(&there), Primary::of(loaf(0)));
        let (cleared, stopped) = (AtomicU32::new(0), AtomicBool::new(false));
        let clear = async {
            let (mut succeeded, mut failed) = (0, 0);
            for version in (1..).take_while(|_| !stopped.load(Ordering::SeqCst)) {
                primary.put(loaf(version));
                if here.clear().await.is_ok() {
                    cleared.store(version, Ordering::SeqCst);
                    succeeded += 1;
                } else {
                    failed += 1;
                }
            }
            println!("{flavor:?}, {moves:?}: {succeeded} have succeeded, {failed} failed");
        };
        let move_slot = async {
            for at in 0..MOVES {
                if at == MOVES - 1 {
                    until(LIMIT, "no clear succeeds", async || cleared.load(Ordering::SeqCst) > 0).await;
                }
                let way = cluster.open(KEY).await;
                // So that it changes hands at any moment of a clear.
                sleep(Duration::from_millis(23 * at)).await;
                cluster.close(KEY, way).await;
                sleep(Duration::from_millis(300)).await;
            }
            stopped.store(true, Ordering::SeqCst);
        };
        let fills = reads(&there, &primary, &stopped, Outcome::Hit, || cleared.load(Ordering::SeqCst));
        tokio::join!(fills, clear, move_slot);
    }
}

/// The slot leaves a server that is not scanned yet for one that has been scanned, with the lease of a load that has read the old
/// row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clear_does_not_overlook_a_slot_that_changes_hands_during_its_scan() {
    const TURNS: u32 = 4;
    let cluster = Cluster::start_moving(Flavor::Valkey91, Moves::Atomically).await;
    // Servers are scanned in the order of their ports.
    let mut primaries = [0, 1, 2];
    primaries.sort_by_key(|index| cluster.servers[*index].port());
    let [first, second, last] = primaries;
    ask(&cluster.servers[second], "DEBUG POPULATE 200000 other").await;
    let (backend, elsewhere) = (connect(&cluster.url()).await, connect(&cluster.url()).await);
    let (here, there) = (products(&backend), products(&elsewhere));
    let mut failed = 0;
    for turn in 1..=TURNS {
        if cluster.owner(KEY).await != last {
            let way = cluster.open_to(KEY, last).await;
            cluster.close(KEY, way).await;
        }
        there.invalidate("p-001").await.unwrap();
        let primary = Primary::of(loaf(turn));
        let (gate, load) = load_at_gate(&there, &primary).await;
        primary.put(loaf(turn + 1));
        let way = cluster.open_to(KEY, first).await;
        let scans = async || cluster.servers[second].calls().await.get("scan").copied().unwrap_or_default();
        let before = scans().await;
        let clear = tokio::spawn({
            let here = here.clone();
            async move { here.clear().await }
        });
        until(LIMIT, "it is not scanned", async || scans().await > before).await;
        cluster.close(KEY, way).await;
        let cleared = clear.await.unwrap();
        gate.open();
        load.await.unwrap().unwrap();
        if cleared.is_ok() {
            assert_eq!(get(&there, primary.loader()).await.unwrap().unwrap().stock, turn + 1);
        } else {
            failed += 1;
            until(LIMIT, "it is not applied", async || backend.close().await.is_ok()).await;
        }
    }
    println!("{failed} of {TURNS} clears have failed");
}
