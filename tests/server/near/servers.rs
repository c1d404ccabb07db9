//! The near cache during faults of servers, clusters and runtimes: no record is older than the bound.

use std::time::{Duration, Instant};

use cache_aside::{Cache, NearCache, Outcome, TrackerState, Untracked};
use testkit::access::Access;
use testkit::cluster::{Cluster, Moves, ask};
use testkit::sentinel::Group;
use testkit::server::{Flavor, Server, trackers};
use tokio::time::sleep;

use super::{
    BOUND, KEY, LIMIT, LONG, Order, backend, bounded, live, near, outcome, sees, stock, warm, write_elsewhere,
};
use crate::support::fixture::{Primary, builder, connect, get, loaf, on_every_server, products, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_server_stands_still_nothing_is_older_than_the_bound() {
    for flavor in Flavor::ALL {
        let server = Server::start(flavor).await;
        let backend = backend(&server.url()).operation_timeout(Duration::from_millis(100)).connect().await.unwrap();
        let (cache, primary) = (near(&backend), Primary::of(loaf(1)));
        warm(&cache, &primary).await;
        server.freeze();
        let (frozen, mut kept_for, mut asked) = (Instant::now(), Duration::ZERO, Duration::ZERO);
        while outcome(&cache, &primary).await == Outcome::NearHit {
            kept_for = asked;
            assert!(kept_for < LIMIT);
            sleep(Duration::from_millis(1)).await;
            asked = frozen.elapsed();
        }
        println!("{flavor:?}, the bound is {BOUND:?}: kept for {kept_for:?}");
        assert!(kept_for <= BOUND, "{kept_for:?}");
        server.thaw();
        warm(&cache, &primary).await;
    }
}

/// The process itself stands still: its tasks are not driven, and its clock goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_runtime_that_stands_still_does_not_stretch_the_bound() {
    let server = Server::start(Flavor::Redis70).await;
    let (cache, primary) = (near(&bounded(&server.url()).await), Primary::of(loaf(1)));
    warm(&cache, &primary).await;
    // Within one turn of the only thread that drives tasks.
    let looked = tokio::spawn(async move {
        std::thread::sleep(BOUND + Duration::from_millis(50));
        outcome(&cache, &primary).await
    });
    assert_eq!(looked.await.unwrap(), Outcome::Hit);
}

async fn kill_tracker(server: &Server) {
    let trackers = trackers(&mut server.client().await).await.unwrap();
    let [id] = &trackers[..] else { panic!("not one tracker: {trackers:?}") };
    redis::cmd("CLIENT").arg(&["KILL", "ID", id]).exec_async(&mut server.client().await).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tracker_that_is_killed_is_replaced() {
    on_every_server(async |server, elsewhere| {
        let (cache, primary) = (near(&bounded(&server.url()).await), Primary::of(loaf(1)));
        let elsewhere = products(&elsewhere);
        for version in 1..=3 {
            warm(&cache, &primary).await;
            let flushes = cache.stats().near_flushes;
            kill_tracker(server).await;
            write_elsewhere(&elsewhere, &primary, version).await;
            sees(&cache, &primary, version, "a write while the tracker is killed").await;
            until(LIMIT, "the end goes unnoticed", async || cache.stats().near_flushes > flushes).await;
            live(&cache).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushall_empties_the_near_cache() {
    on_every_server(async |server, _| {
        let (cache, primary) = (near(&bounded(&server.url()).await), Primary::of(loaf(1)));
        warm(&cache, &primary).await;
        let flushes = cache.stats().near_flushes;
        primary.put(loaf(2));
        let mut operator = server.client().await;
        redis::cmd("FLUSHALL").exec_async(&mut operator).await.unwrap();
        sees(&cache, &primary, 2, "FLUSHALL").await;
        until(LIMIT, "no message comes", async || cache.stats().near_flushes > flushes).await;
    })
    .await;
}

/// The keys of a transaction come in one message, which is split into many pieces.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_about_very_many_keys_is_taken_whole() {
    const WRITE: &str =
        "for at = 1, 20000 do redis.call('SET', KEYS[1] .. at, '') end return redis.call('DEL', KEYS[1])";
    on_every_server(async |server, _| {
        let backend = backend(&server.url()).heartbeat_timeout(LONG).connect().await.unwrap();
        let (cache, primary) = (near(&backend), Primary::of(loaf(1)));
        warm(&cache, &primary).await;
        let flushes = cache.stats().near_flushes;
        primary.put(loaf(2));
        redis::cmd("EVAL").arg(&[WRITE, "1", KEY]).exec_async(&mut server.client().await).await.unwrap();
        until(LIMIT, "the old record is kept", async || stock(&cache, &primary).await == 2).await;
        warm(&cache, &primary).await;
        assert_eq!(cache.stats().near_flushes, flushes, "the connection is kept");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_simulated_outage_nothing_is_kept() {
    let server = Server::start(Flavor::Redis70).await;
    let backend = connect(&server.url()).await;
    let (cache, primary) = (near(&backend), Primary::of(loaf(1)));
    warm(&cache, &primary).await;
    backend.outage(true);
    assert_eq!(outcome(&cache, &primary).await, Outcome::Bypassed);
    backend.outage(false);
    assert_eq!(outcome(&cache, &primary).await, Outcome::Hit);
    warm(&cache, &primary).await;
}

/// The user may not use tracking, and then may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_tracking_works_nothing_from_before_is_left() {
    let (server, access) = (Server::start(Flavor::Redis70).await, Access::documented());
    access.grant(&server).await;
    let (backend, primary) = (bounded(&access.url(&server.url())).await, Primary::of(loaf(1)));
    let settings = NearCache::entries(10).max_age(LONG).untracked(Untracked::MaxAge);
    let cache = builder(&backend).ttl(LONG).near_cache(settings).build().unwrap();
    warm(&cache, &primary).await;
    assert_eq!(cache.stats().tracker, TrackerState::Unsupported);
    write_elsewhere(&products(&connect(&server.url()).await), &primary, 2).await;
    assert_eq!(stock(&cache, &primary).await, 1, "nobody tells");
    Access::documented_for_near_caches().grant(&server).await;
    // One more prefix makes it ask at once.
    let _orders: Cache<Order> = Cache::builder(backend).near_cache(settings).build().unwrap();
    live(&cache).await;
    assert_eq!(stock(&cache, &primary).await, 2);
}

/// A cache may outlive the runtime on which it was built, for example from one test to the next.
#[test]
fn a_tracker_goes_on_after_its_runtime_has_ended() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let (server, cache, primary) = first.block_on(async {
        let server = Server::start(Flavor::Redis70).await;
        let (cache, primary) = (near(&bounded(&server.url()).await), Primary::of(loaf(1)));
        warm(&cache, &primary).await;
        (server, cache, primary)
    });
    drop(first);
    second.block_on(async {
        write_elsewhere(&products(&connect(&server.url()).await), &primary, 2).await;
        assert_eq!(stock(&cache, &primary).await, 2);
        warm(&cache, &primary).await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_trackers_follow_moving_slots_and_a_failover() {
    for (flavor, moves) in Moves::ON {
        let mut cluster = Cluster::start_moving(flavor, moves).await;
        let (cache, primary) = (near(&bounded(&cluster.url()).await), Primary::of(loaf(0)));
        let elsewhere = products(&connect(&cluster.url()).await);
        let write = async |version, what: &str| {
            write_elsewhere(&elsewhere, &primary, version).await;
            sees(&cache, &primary, version, &format!("{flavor:?}, {moves:?}, {what}")).await;
        };
        warm(&cache, &primary).await;
        write(1, "all well").await;

        warm(&cache, &primary).await;
        let way = cluster.open(KEY).await;
        cluster.migrate(KEY, way).await;
        write(2, "its slot on the way").await;
        get(&cache, primary.loader()).await.unwrap();
        write(3, "its slot on the way").await;
        cluster.close(KEY, way).await;
        warm(&cache, &primary).await;
        write(4, "its slot has moved").await;

        warm(&cache, &primary).await;
        cluster.fail_over(KEY).await;
        until(LIMIT, "the writer is out of reach", async || elsewhere.invalidate("p-001").await.is_ok()).await;
        write(5, "after a failover").await;
        warm(&cache, &primary).await;
        write(6, "after a failover").await;
        assert_eq!(ask(&cluster.servers[cluster.owner(KEY).await], "PING").await, "PONG");
    }
}

/// Only messages can tell it: it sends nothing that would be redirected, and no tracker is connected to a primary without slots.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_near_cache_that_sends_nothing_learns_that_a_slot_has_moved_to_a_new_primary() {
    for (flavor, moves) in Moves::ON {
        let mut cluster = Cluster::start_moving(flavor, moves).await;
        let added = cluster.add_primary(flavor).await;
        let (cache, primary) = (near(&bounded(&cluster.url()).await), Primary::of(loaf(0)));
        let elsewhere = products(&connect(&cluster.url()).await);
        warm(&cache, &primary).await;
        let way = cluster.open_to(KEY, added).await;
        cluster.close(KEY, way).await;
        for version in 1..=2 {
            write_elsewhere(&elsewhere, &primary, version).await;
            sees(&cache, &primary, version, &format!("{flavor:?}, {moves:?}, its slot at a new primary")).await;
            warm(&cache, &primary).await;
        }
        assert_eq!(cluster.owner(KEY).await, added);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tracker_follows_the_sentinels_to_another_master() {
    for flavor in [Flavor::Redis70, Flavor::Valkey91] {
        let group = Group::start(flavor).await;
        group.be_patient(LIMIT).await;
        let (cache, primary) = (near(&bounded(&group.url()).await), Primary::of(loaf(0)));
        warm(&cache, &primary).await;
        let elsewhere = products(&connect(&group.url()).await);
        group.fail_over().await;
        for version in 1..=2 {
            write_elsewhere(&elsewhere, &primary, version).await;
            sees(&cache, &primary, version, &format!("{flavor:?}, after a failover by sentinels")).await;
            warm(&cache, &primary).await;
        }
    }
}
