//! A server starts again with old data of its own.

use std::time::{Duration, Instant};

use cache_aside::{Backend, Outcome};
use testkit::cluster::Cluster;
use testkit::server::{Flavor, Server};

use super::{FLAVORS, LIMIT, Process, Seen, Watch, old, put};
use crate::support::fixture::{Primary, until};

const RECORDS: usize = 1_000;

/// Writes a snapshot, which the server reads when it starts again.
async fn save(server: &Server) {
    redis::cmd("SAVE").exec_async(&mut server.client().await).await.unwrap();
}

/// Waits for two seconds at most. They are counted in looks: one that the machine delays counts as any other.
async fn within_two_seconds(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    const LOOKS: u32 = 100;
    for _ in 0..LOOKS {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_secs(2) / LOOKS).await;
    }
    panic!("{what}");
}

async fn marks(server: &Server) -> Vec<String> {
    redis::cmd("KEYS").arg("cache:~swept:*").query_async(&mut server.client().await).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_were_invalidated_after_the_snapshot_are_never_hits() {
    for flavor in Flavor::ALL {
        println!("on {flavor:?}");
        let mut server = Server::start(flavor).await;
        let primary = Primary::default();
        put(&primary, 0..RECORDS, 1);
        let [writer, other, gone] = [(); 3].map(|()| server.url()).map(async |url| Process::start(&url).await);
        let (writer, other, gone) = (writer.await, other.await, gone.await);
        other.read(&primary, 0..RECORDS).await;
        other.read(&primary, 0..RECORDS).await;
        save(&server).await;
        put(&primary, 0..RECORDS, 2);
        writer.invalidate(0..RECORDS / 2).await;
        gone.invalidate(RECORDS / 2..RECORDS).await;
        drop(gone);

        server.restart().await;
        let back = Instant::now();
        let watches = [&writer, &other].map(|process| Watch::start(process, &primary, 0..RECORDS));
        for process in [&writer, &other] {
            process.uses_cache_again(&primary).await;
        }
        println!("  used again after {:?}", back.elapsed());
        tokio::time::sleep(Duration::from_millis(300)).await;
        for watch in watches {
            let Seen { reads, .. } = watch.end().await;
            let hits = reads.iter().filter(|read| read.outcome == Outcome::Hit).count();
            println!("  {} reads, {hits} hits", reads.len());
            assert_eq!(old(&reads).len(), 0, "of {} reads", reads.len());
        }
        let marks = marks(&server).await;
        assert_eq!(marks.len(), 1, "{marks:?}");
        assert!(marks[0].ends_with(":billing:product"), "{marks:?}");
        let none_waits = async || writer.cache.pending().is_empty() && other.cache.pending().is_empty();
        until(LIMIT, "invalidations still wait", none_waits).await;
    }
}

/// A process that has nothing to do finds out too, since its own writes may have come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_process_invalidates_again_what_has_come_back() {
    for flavor in FLAVORS {
        let mut server = Server::start(flavor).await;
        let primary = Primary::default();
        put(&primary, 0..10, 1);
        let writer = Process::start(&server.url()).await;
        writer.read(&primary, 0..10).await;
        save(&server).await;
        put(&primary, 0..10, 2);
        writer.invalidate(0..10).await;
        server.restart().await;
        within_two_seconds("the old entries stay", async || {
            let keys: Vec<String> =
                redis::cmd("KEYS").arg("cache:billing:*").query_async(&mut server.client().await).await.unwrap();
            keys.is_empty()
        })
        .await;
    }
}

/// A process that has written nothing, and has nothing to do, protects one that starts after the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_process_sweeps_what_a_new_process_would_read() {
    for flavor in FLAVORS {
        let mut server = Server::start(flavor).await;
        let primary = Primary::default();
        put(&primary, 0..10, 1);
        let (gone, idle) = (Process::start(&server.url()).await, Process::start(&server.url()).await);
        gone.read(&primary, 0..10).await;
        idle.read(&primary, 0..10).await;
        save(&server).await;
        put(&primary, 0..10, 2);
        gone.invalidate(0..10).await;
        drop(gone);
        server.restart().await;
        let new = Process::start(&server.url()).await;
        within_two_seconds("the old entries stay", async || {
            new.cache.lookup("7", primary.loader()).await.unwrap().value.unwrap().stock == 2
        })
        .await;
        drop(idle);
    }
}

/// Nobody may sweep twice, and a connection that was cut is no reason to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_reconnect_keeps_all_entries() {
    for flavor in FLAVORS {
        let server = Server::start(flavor).await;
        let primary = Primary::default();
        put(&primary, 0..100, 2);
        let processes = [Process::start(&server.url()).await, Process::start(&server.url()).await];
        processes[0].read(&primary, 0..100).await;
        processes[0].invalidate(0..1).await;
        processes[0].read(&primary, 0..100).await;
        let before = primary.loads();
        for _ in 0..3 {
            let mut operator = server.client().await;
            redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal"]).exec_async(&mut operator).await.ok();
            for process in &processes {
                process.read(&primary, 0..100).await;
                assert!(process.cache.pending().is_empty());
            }
        }
        assert_eq!(primary.loads(), before, "records were loaded again");
        assert!(marks(&server).await.is_empty());
    }
}

/// A primary comes back before its replica takes over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_only_the_server_that_has_started_again_is_swept() {
    for flavor in FLAVORS {
        println!("on {flavor:?}");
        let mut cluster = Cluster::start(flavor).await;
        let primary = Primary::default();
        put(&primary, 0..100, 1);
        let processes = [Process::start(&cluster.url()).await, Process::start(&cluster.url()).await];
        for process in &processes {
            process.read(&primary, 0..100).await;
        }
        let owner = cluster.owner("cache:billing:product:7").await;
        save(&cluster.servers[owner]).await;
        let mut here = Vec::new();
        for number in 0..100 {
            if cluster.owner(&format!("cache:billing:product:{number}")).await == owner {
                here.push(number);
            }
        }
        put(&primary, here.iter().copied(), 2);
        processes[0].invalidate(here.iter().copied()).await;
        let before = primary.loads();
        cluster.servers[owner].restart().await;
        for process in &processes {
            process.uses_cache_again(&primary).await;
            let found = process.cache.lookup("7", primary.loader()).await.unwrap().value.unwrap();
            assert_eq!(found.stock, 2);
        }
        let others = (0..100).filter(|number| !here.contains(number));
        let loads = primary.loads();
        processes[1].read(&primary, others).await;
        assert_eq!(primary.loads(), loads, "records of other servers were loaded again");
        println!("  {} loads of {} records meanwhile", loads - before, here.len());
    }
}

/// A replica has its primary's data, whenever it was started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_a_replica_that_starts_again_is_no_restart() {
    for flavor in FLAVORS {
        println!("on {flavor:?}");
        let mut cluster = Cluster::start(flavor).await;
        let primary = Primary::default();
        put(&primary, 0..100, 2);
        let replica = cluster.servers.len() - 1;
        let process = Process::start(&format!("redis+cluster://127.0.0.1:{}", cluster.servers[replica].port())).await;
        process.read(&primary, 0..100).await;
        process.invalidate(0..1).await;
        process.read(&primary, 0..100).await;
        let loads = primary.loads();
        cluster.bring_back(replica).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        process.read(&primary, 0..100).await;
        assert_eq!(primary.loads(), loads, "records were loaded again");
        assert!(process.cache.pending().is_empty());
        assert!(marks(&cluster.servers[0]).await.is_empty());
    }
}

#[tokio::test]
async fn the_window_has_bounds() {
    let too_long = Backend::builder("memory://").replay_window(Duration::from_secs(37_000 * 86_400));
    let error = too_long.connect().await.unwrap_err().to_string();
    assert!(error.contains("replay_window"), "{error}");
}
