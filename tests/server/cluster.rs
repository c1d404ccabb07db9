//! Redis Cluster: all operations, over servers between which slots move, and one of which may be killed.

use cache_aside::{Backend, Cache, Outcome};

use crate::clusters::Cluster;
use crate::fixture::{Primary, Product, connect, get, loaf, lookup, products};
use crate::harness::Flavor;

const KEY: &str = "cache:billing:product:p-001";

async fn on_every_cluster(test: impl AsyncFn(Cluster, Backend)) {
    for flavor in Flavor::OF_CLUSTERS {
        println!("on a cluster of {flavor:?}");
        let cluster = Cluster::start(flavor).await;
        let backend = connect(&cluster.url()).await;
        test(cluster, backend).await;
    }
}

async fn works(cache: &Cache<Product>, primary: &Primary) {
    let loads = primary.loads();
    cache.invalidate("p-001").await.unwrap();
    assert_eq!(lookup(cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
    assert_eq!(lookup(cache, primary.loader()).await.unwrap().outcome, Outcome::Hit);
    assert_eq!(primary.loads(), loads + 1);
    assert!(cache.update_field("p-001", Product::FIELDS.stock, 41).await.unwrap());
    assert_eq!(cache.peek("p-001").await.unwrap().unwrap().stock, 41);
    assert_eq!(cache.modify("p-001", |product| product.stock -= 1).await.unwrap().unwrap().stock, 40);
    assert!(cache.inspect("p-001").await.unwrap().ttl.is_some());
    assert!(cache.invalidate("p-001").await.unwrap());
    assert!(!cache.invalidate("p-001").await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_works() {
    on_every_cluster(async |cluster, backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(42)));
        works(&cache, &primary).await;
        cluster.move_slot(KEY).await;
        works(&cache, &primary).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_works_while_the_keys_slot_is_on_its_way() {
    on_every_cluster(async |cluster, backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(42)));
        get(&cache, primary.loader()).await.unwrap();
        let way = cluster.open(KEY).await;

        // The entry at one server, what is missing at the other.
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Hit);
        assert!(cache.update_field("p-001", Product::FIELDS.stock, 41).await.unwrap());
        assert_eq!(cache.modify("p-001", |product| product.stock -= 1).await.unwrap().unwrap().stock, 40);
        cluster.migrate(KEY, way).await;
        assert_eq!(cache.peek("p-001").await.unwrap().unwrap().stock, 40);
        assert!(cache.update_field("p-001", Product::FIELDS.stock, 39).await.unwrap());
        assert_eq!(cache.modify("p-001", |product| product.stock -= 1).await.unwrap().unwrap().stock, 38);
        assert!(cache.invalidate("p-001").await.unwrap());

        // No entry: a load can't be stored, and is returned all the same.
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().value.unwrap().stock, 42);
        assert!(cache.peek("p-001").await.unwrap().is_none());
        assert!(!cache.update_field("p-001", Product::FIELDS.stock, 1).await.unwrap());
        assert!(!cache.invalidate("p-001").await.unwrap());

        cluster.close(KEY, way).await;
        works(&cache, &primary).await;
    })
    .await;
}

/// Those of the tests that need no server of their own.
const RACES: [&str; 7] =
    ["races::", "schedules::", "stampede::a_thousand_readers_", "--skip", "_of_four_processes_", "--skip", "_from_a_process_"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_races_end_as_they_should_while_slots_move_and_after_a_failover() {
    for flavor in Flavor::OF_CLUSTERS {
        let mut cluster = Cluster::start(flavor).await;
        cluster.while_moving(KEY, cluster.run_tests(&RACES)).await;
        cluster.fail_over(KEY).await;
        cluster.run_tests(&RACES).await;
    }
}
