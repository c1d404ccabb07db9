//! `acknowledged_by`: a write counts once replicas have it.

use std::error::Error as _;
use std::time::Duration;

use cache_aside::{Backend, Cache, Error, Outcome};
use testkit::access::Access;
use testkit::cluster::Cluster;
use testkit::server::{Flavor, Server};

use crate::support::fixture::{Primary, Product, builder, loaf, lookup, until, until_applied};

const LIMIT: Duration = Duration::from_secs(20);
/// Longer than a replica takes on a busy machine, which acknowledges each second, or when it is asked.
const TIMEOUT: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(100);
const KEY: &str = "cache:billing:product:p-001";

async fn connect(url: &str, replicas: u32, timeout: Duration) -> Cache<Product> {
    let backend = Backend::builder(url).operation_timeout(Duration::from_secs(5)).acknowledged_by(replicas, timeout);
    builder(&backend.connect().await.unwrap()).update_timeout(LIMIT).build().unwrap()
}

async fn replica_of(server: &Server, flavor: Flavor) -> Server {
    let replica = Server::start_with(flavor, &["--replicaof", "127.0.0.1", &server.port().to_string()]).await;
    until(LIMIT, "the replica doesn't follow", async || {
        let info: String =
            redis::cmd("INFO").arg("replication").query_async(&mut replica.client().await).await.unwrap();
        info.contains("master_link_status:up")
    })
    .await;
    replica
}

async fn exists(server: &Server, key: &str) -> bool {
    redis::cmd("EXISTS").arg(key).query_async(&mut server.client().await).await.unwrap()
}

fn is_unacknowledged(error: &Error) -> bool {
    let cause = error.source().unwrap().to_string();
    println!("{error}: {cause}");
    cause == "0 of 1 replicas have acknowledged the write within 100ms"
        && error.to_string().ends_with("ask for fewer in acknowledged_by")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_on_the_replica_when_its_call_returns() {
    for flavor in Flavor::ALL {
        let server = Server::start(flavor).await;
        let replica = replica_of(&server, flavor).await;
        let cache = connect(&server.url(), 1, TIMEOUT).await;
        let primary = Primary::of(loaf(1));
        for _ in 0..10 {
            lookup(&cache, primary.loader()).await.unwrap();
            until(LIMIT, "the entry isn't replicated", async || exists(&replica, KEY).await).await;
            assert!(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());
            let stock: u32 =
                redis::cmd("HGET").arg(KEY).arg("stock").query_async(&mut replica.client().await).await.unwrap();
            assert_eq!(stock, 2);
            assert!(cache.invalidate("p-001").await.unwrap());
            assert!(!exists(&replica, KEY).await);
            assert!(!cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap(), "there is none");
        }
        assert!(cache.pending().is_empty());
        assert!(!exists(&server, &format!("{{{KEY}}}:lock")).await);
    }
}

/// The second attempt finds nothing to delete. Servers that count a connection's own writes alone would call it acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_no_replica_has_in_time_is_an_error_and_pending_until_one_has() {
    for flavor in Flavor::ALL {
        let server = Server::start(flavor).await;
        let replica = replica_of(&server, flavor).await;
        let (cache, primary) = (connect(&server.url(), 1, SHORT).await, Primary::of(loaf(1)));
        lookup(&cache, primary.loader()).await.unwrap();
        until(LIMIT, "the entry isn't replicated", async || exists(&replica, KEY).await).await;
        replica.freeze();
        assert!(is_unacknowledged(&cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap_err()));
        for _ in 0..3 {
            assert!(is_unacknowledged(&cache.invalidate("p-001").await.unwrap_err()), "{flavor:?}");
            assert_eq!(cache.pending().keys, [KEY]);
            assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Bypassed);
        }
        assert!(!exists(&server, KEY).await, "the primary has it");
        replica.thaw();
        until_applied(&cache).await;
        assert!(!exists(&replica, KEY).await);
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_replica_no_write_succeeds() {
    for flavor in Flavor::ALL {
        let server = Server::start(flavor).await;
        let cache = connect(&server.url(), 1, SHORT).await;
        assert!(is_unacknowledged(&cache.invalidate("p-001").await.unwrap_err()));
        assert!(is_unacknowledged(&cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap_err()));
        assert_eq!(cache.pending().keys, [KEY]);
    }
}

/// The shared connection doesn't wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_do_not_wait_for_replicas() {
    let server = Server::start(Flavor::Redis70).await;
    let cache = connect(&server.url(), 1, Duration::from_secs(300)).await;
    let primary = Primary::of(loaf(1));
    lookup(&cache, primary.loader()).await.unwrap();
    let write = tokio::spawn({
        let cache = cache.clone();
        async move { cache.invalidate("p-002").await }
    });
    until(LIMIT, "nobody waits", async || {
        server.calls().await.contains_key("wait") || {
            let clients: String =
                redis::cmd("CLIENT").arg("LIST").query_async(&mut server.client().await).await.unwrap();
            clients.contains("cmd=wait")
        }
    })
    .await;
    assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Hit);
    assert!(!write.is_finished());
    write.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_are_acknowledged_in_a_cluster_while_slots_move() {
    for flavor in Flavor::OF_CLUSTERS {
        let cluster = Cluster::start(flavor).await;
        let (cache, primary) = (connect(&cluster.url(), 1, TIMEOUT).await, Primary::of(loaf(1)));
        let work = async {
            for _ in 0..20 {
                lookup(&cache, primary.loader()).await.unwrap();
                cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap();
                cache.invalidate("p-001").await.unwrap();
                assert_eq!(cache.peek("p-001").await.unwrap(), None);
            }
        };
        cluster.while_moving(KEY, work).await;
        assert!(cache.pending().is_empty());
    }
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused_and_so_is_a_server_without_wait() {
    for (replicas, timeout) in [(0, SHORT), (1, Duration::ZERO)] {
        let error = Backend::builder("memory://").acknowledged_by(replicas, timeout).connect().await.unwrap_err();
        assert!(matches!(&error, Error::Config { mistake, .. } if mistake.contains("acknowledged_by")), "{error}");
    }
    Backend::builder("memory://").acknowledged_by(1, SHORT).connect().await.unwrap();
    let (server, access) = (Server::start(Flavor::Redis70).await, Access::documented());
    access.grant(&server).await;
    let backend = Backend::builder(&access.url(&server.url())).acknowledged_by(1, SHORT);
    let error = backend.connect().await.unwrap_err();
    assert!(error.source().unwrap().to_string().starts_with("the server refuses WAIT (NOPERM "), "{error:?}");
}
