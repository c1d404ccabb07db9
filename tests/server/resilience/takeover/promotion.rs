//! A replica that lags behind is promoted.

use std::time::{Duration, Instant};

use testkit::cluster::Cluster;
use testkit::sentinel::Group;
use tokio::time::sleep;

use super::{FLAVORS, LIMIT, Process, Seen, Watch, cut_off, old, put};
use crate::support::fixture::{Primary, until};

/// After that time from the move, a get returns nothing that is older than a write of a living process.
const SOON: Duration = Duration::from_secs(1);

/// Old reads begin when a process has moved whose writer has not, and end when that has.
fn check(writers: &Seen, others: &Seen, up: Instant) {
    assert_eq!(old(&writers.reads).len(), 0, "the process that has written reads old records");
    let old: Vec<_> = old(&others.reads).into_iter().map(|read| read.began.saturating_duration_since(up)).collect();
    let (first, last) = (old.iter().min().copied().unwrap_or_default(), old.iter().max().copied().unwrap_or_default());
    println!(
        "  {} of {} reads of another process were old, {first:?} to {last:?} after the promotion",
        old.len(),
        others.reads.len()
    );
    let soon = SOON + writers.lag.max(others.lag) * 10;
    assert!(last - first <= soon, "later than {soon:?} after the move");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_a_promoted_replica_has_not_seen_are_made_again() {
    const RECORDS: usize = 100;
    for flavor in FLAVORS {
        println!("on {flavor:?}");
        let mut group = Group::start(flavor).await;
        let primary = Primary::default();
        put(&primary, 0..RECORDS, 1);
        let (writer, other) = (Process::start(&group.url()).await, Process::start(&group.url()).await);
        writer.read(&primary, 0..RECORDS).await;
        for replica in &group.servers[1..] {
            until(LIMIT, "the replica has it", async || {
                let size: usize = redis::cmd("DBSIZE").query_async(&mut replica.client().await).await.unwrap();
                size == RECORDS
            })
            .await;
        }
        cut_off(&group.servers[0], &[&group.servers[1], &group.servers[2]]).await;
        put(&primary, 0..RECORDS, 2);
        writer.invalidate(0..RECORDS).await;
        group.servers[0].kill().await;
        let watches = [&writer, &other].map(|process| Watch::start(process, &primary, 0..RECORDS));
        group.servers[1..].iter().for_each(|replica| replica.thaw());
        let (_, up) = group.promotion_besides(0).await;
        other.uses_cache_again(&primary).await;
        println!("  used again {:?} after the promotion", up.elapsed());
        sleep(Duration::from_secs(2)).await;
        let [writers, others] = watches.map(Watch::end);
        check(&writers.await, &others.await, up);
    }
}

/// The processes use it until the sentinels name the new one, and nobody else gets what they write meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_at_a_master_that_was_given_up_are_made_again() {
    const RECORDS: usize = 100;
    for flavor in FLAVORS {
        println!("on {flavor:?}");
        let group = Group::start(flavor).await;
        group.be_patient(LIMIT).await;
        let primary = Primary::default();
        put(&primary, 0..RECORDS, 1);
        let (writer, other) = (Process::start(&group.url()).await, Process::start(&group.url()).await);
        writer.read(&primary, 0..RECORDS).await;
        group.fail_over().await;
        let (_, up) = group.promotion_besides(0).await;
        put(&primary, 0..RECORDS, 2);
        writer.invalidate(0..RECORDS).await;
        let watches = [&writer, &other].map(|process| Watch::start(process, &primary, 0..RECORDS));
        sleep(Duration::from_secs(3)).await;
        let [writers, others] = watches.map(Watch::end);
        check(&writers.await, &others.await, up);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hot_records_are_not_loaded_again() {
    const RECORDS: usize = 10_000;
    const WRITTEN: usize = 50;
    for flavor in FLAVORS {
        println!("on {flavor:?}");
        let group = Group::start(flavor).await;
        group.be_patient(LIMIT).await;
        let primary = Primary::default();
        put(&primary, 0..RECORDS, 2);
        let processes = [Process::start(&group.url()).await, Process::start(&group.url()).await];
        processes[0].read(&primary, 0..RECORDS).await;
        processes[0].invalidate(0..WRITTEN).await;
        processes[0].read(&primary, 0..RECORDS).await;
        let replicated: i64 =
            redis::cmd("WAIT").arg(&[2, 5_000]).query_async(&mut group.servers[0].client().await).await.unwrap();
        assert_eq!(replicated, 2);
        group.fail_over().await;
        let (promoted, _) = group.promotion_besides(0).await;
        let reads_there = async || group.servers[promoted].calls().await.get("hmget").copied().unwrap_or(0);
        until(LIMIT, "nobody moves", async || {
            processes[0].read(&primary, 0..1).await;
            processes[1].read(&primary, 0..1).await;
            reads_there().await > 1
        })
        .await;
        sleep(Duration::from_millis(500)).await;
        let before = primary.loads();
        for process in &processes {
            process.read(&primary, 0..RECORDS).await;
        }
        let loads = primary.loads() - before;
        println!("  {loads} of {RECORDS} records were loaded again");
        assert!(loads as usize <= RECORDS / 100, "{loads}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_a_promoted_replica_of_a_cluster_has_not_seen_are_made_again() {
    const RECORDS: usize = 100;
    for flavor in FLAVORS {
        println!("on {flavor:?}");
        let mut cluster = Cluster::start(flavor).await;
        let primary = Primary::default();
        put(&primary, 0..RECORDS, 1);
        let (writer, other) = (Process::start(&cluster.url()).await, Process::start(&cluster.url()).await);
        writer.read(&primary, 0..RECORDS).await;
        other.read(&primary, 0..RECORDS).await;
        let key = "cache:billing:product:7";
        let [master, replica] = cluster.pair(key).await;
        let replicated: i64 =
            redis::cmd("WAIT").arg(&[1, 5_000]).query_async(&mut master.client().await).await.unwrap();
        assert_eq!(replicated, 1);
        cut_off(master, &[replica]).await;
        put(&primary, 0..RECORDS, 2);
        writer.invalidate(0..RECORDS).await;
        let owner = cluster.owner(key).await;
        cluster.servers[owner].kill().await;
        let watches = [&writer, &other].map(|process| Watch::start(process, &primary, 0..RECORDS));
        cluster.servers[(owner + 3) % 6].thaw();
        cluster.taken_over(owner).await;
        let up = Instant::now();
        other.uses_cache_again(&primary).await;
        println!("  used again {:?} after the promotion", up.elapsed());
        sleep(Duration::from_secs(2)).await;
        let [writers, others] = watches.map(Watch::end);
        check(&writers.await, &others.await, up);
    }
}
