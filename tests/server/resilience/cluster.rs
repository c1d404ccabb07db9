//! Redis Cluster: all operations, while slots move between servers, and after a server was killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cache_aside::{Backend, BoxError, Cache, Outcome};
use futures_util::future::join_all;
use testkit::cluster::{Cluster, Moves, ask};
use testkit::server::{Flavor, Server};

use crate::protocol::stampede::stampede_of_processes;
use crate::support::fixture::{
    Gate, Primary, Product, builder, connect, connect_under, get, loaf, lookup, products, settle,
};

const KEY: &str = "cache:billing:product:p-001";

/// For calls that a busy machine may delay.
const LIMIT: Duration = Duration::from_secs(20);

async fn on_every_cluster(test: impl AsyncFn(Cluster, Backend)) {
    for (flavor, moves) in Moves::ON {
        println!("on a cluster of {flavor:?}, whose slots move {moves:?}");
        let cluster = Cluster::start_moving(flavor, moves).await;
        let backend = Backend::builder(&cluster.url()).operation_timeout(Duration::from_secs(5)).close_timeout(LIMIT);
        let backend = backend.connect().await.unwrap();
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

        let prefixed = products(&connect_under(&cluster.url(), "team-a:").await);
        works(&prefixed, &primary).await;
        cluster.move_slot(&format!("team-a:{KEY}")).await;
        works(&prefixed, &primary).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_many_reads_and_loads_over_all_primaries() {
    on_every_cluster(async |cluster, backend| {
        let cache = products(&backend);
        let ids: Vec<_> = (0..100).map(|number| number.to_string()).collect();
        let mut owners = Vec::new();
        for id in &ids {
            owners.push(cluster.owner(&format!("cache:billing:product:{id}")).await);
        }
        owners.sort_unstable();
        owners.dedup();
        assert_eq!(owners.len(), 3);
        let load = |ids: Vec<String>| async {
            Ok::<_, BoxError>(ids.into_iter().map(|id| Product { id, ..loaf(1) }).collect::<Vec<_>>())
        };
        // With lifetimes each key has two replies.
        let with_lifetimes = builder(&backend).namespace("timed").refresh_ahead(0.1).build().unwrap();
        for cache in [&cache, &with_lifetimes] {
            for outcome in [Outcome::Loaded, Outcome::Hit] {
                let answers = cache.lookup_many(ids.clone(), load).await;
                assert_eq!(answers.len(), ids.len());
                for (id, answer) in ids.iter().zip(answers) {
                    let answer = answer.unwrap();
                    assert_eq!((answer.outcome, &answer.value.unwrap().id), (outcome, id));
                }
            }
        }
        let never = |_id: String| async { Err::<Option<Product>, BoxError>("it is there".into()) };
        for id in &ids {
            let stock = cache.get_fields(id, (Product::FIELDS.stock,), never).await.unwrap();
            assert_eq!(stock, Some((1,)));
        }
        for (namespace, cache) in [("billing", &cache), ("timed", &with_lifetimes)] {
            // One key is redirected, until the servers agree: no other key may get its record.
            cluster.move_slot(&format!("cache:{namespace}:product:0")).await;
            for (id, record) in ids.iter().zip(cache.get_many(ids.clone(), load).await) {
                assert_eq!(&record.unwrap().unwrap().id, id);
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_works_while_the_keys_slot_moves() {
    on_every_cluster(async |cluster, backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(42)));
        get(&cache, primary.loader()).await.unwrap();
        let way = cluster.open(KEY).await;

        // The entry is on one server, and a missing one on the other.
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Hit);
        assert!(cache.update_field("p-001", Product::FIELDS.stock, 41).await.unwrap());
        assert_eq!(cache.modify("p-001", |product| product.stock -= 1).await.unwrap().unwrap().stock, 40);
        cluster.migrate(KEY, way).await;
        assert_eq!(cache.peek("p-001").await.unwrap().unwrap().stock, 40);
        assert!(cache.update_field("p-001", Product::FIELDS.stock, 39).await.unwrap());
        assert_eq!(cache.modify("p-001", |product| product.stock -= 1).await.unwrap().unwrap().stock, 38);
        assert!(cache.invalidate("p-001").await.unwrap());

        // There is no entry: where keys move one by one, a load can't be stored, but is returned.
        let is_stored = cluster.moves == Moves::Atomically;
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().value.unwrap().stock, 42);
        assert_eq!(cache.peek("p-001").await.unwrap().is_some(), is_stored);
        assert_eq!(cache.update_field("p-001", Product::FIELDS.stock, 1).await.unwrap(), is_stored);
        assert_eq!(cache.invalidate("p-001").await.unwrap(), is_stored);

        cluster.close(KEY, way).await;
        works(&cache, &primary).await;
    })
    .await;
}

/// A script may not write a key that it has deleted itself, on a server that the slot is leaving.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_replaces_an_unreadable_entry_is_stored_while_its_slot_moves() {
    on_every_cluster(async |cluster, backend| {
        let (cache, primary, gate) = (products(&backend), Primary::of(loaf(42)), Gate::closed());
        ask(&cluster.servers[cluster.owner(KEY).await], &format!("HSET {KEY} stock many")).await;
        let replacing = tokio::spawn(get(&cache, primary.gated(&gate)));
        gate.arrival().await;
        let way = cluster.open(KEY).await;
        gate.open();
        settle().await;
        cluster.close(KEY, way).await;
        assert_eq!(replacing.await.unwrap().unwrap().unwrap().stock, 42);
        assert_eq!(cache.peek("p-001").await.unwrap().unwrap().stock, 42);
    })
    .await;
}

/// The tests that need no server of their own.
const RACES: [&str; 8] = [
    "races::",
    "loads::a_lease_is_renewed",
    "schedules::",
    "stampede::a_thousand_readers_",
    "--skip",
    "_of_four_processes_",
    "--skip",
    "_from_a_process_",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn races_and_schedules_pass_while_slots_move_and_after_a_failover() {
    for (flavor, moves) in Moves::ON {
        let mut cluster = Cluster::start_moving(flavor, moves).await;
        cluster.while_moving(KEY, cluster.run_tests(&RACES)).await;
        cluster.fail_over(KEY).await;
        cluster.run_tests(&RACES).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_readers_in_each_of_four_processes_share_one_load() {
    for flavor in Flavor::OF_CLUSTERS {
        let (cluster, meeting_place) = (Cluster::start(flavor).await, Server::start(flavor).await);
        stampede_of_processes(&cluster.url(), &meeting_place).await;
    }
}

/// The service goes on while a primary is killed, and uses its replica soon after that has taken over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_while_a_replica_takes_over_from_a_killed_primary() {
    const READERS: u32 = 20;
    const SOON: Duration = Duration::from_secs(10);
    for flavor in Flavor::OF_CLUSTERS {
        let mut cluster = Cluster::start(flavor).await;
        let backend = Backend::builder(&cluster.url()).operation_timeout(Duration::from_secs(2)).close_timeout(LIMIT);
        let backend = backend.connect().await.unwrap();
        let cache = builder(&backend).update_timeout(LIMIT).build().unwrap();
        let primary = Primary::of(loaf(1));
        let stopped = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                let (cache, primary, stopped) = (cache.clone(), primary.clone(), stopped.clone());
                tokio::spawn(async move {
                    let mut reads = 0;
                    while !stopped.load(Ordering::Relaxed) {
                        let id = if reads % 2 == 0 { "p-001".to_owned() } else { format!("p-{reader}") };
                        cache.get(&id, primary.loader()).await.expect("reads go on");
                        reads += 1;
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    reads
                })
            })
            .collect();
        cluster.fail_over(KEY).await;
        let promoted = Instant::now();
        while lookup(&cache, primary.loader()).await.unwrap().outcome != Outcome::Hit {
            assert!(promoted.elapsed() < SOON, "{flavor:?}: no hit within {SOON:?} of the promotion");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        println!("{flavor:?}: hits again {:?} after the promotion", promoted.elapsed());
        stopped.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.await.unwrap() > 100, "a reader stood still");
        }
        backend.close().await.unwrap();
        works(&cache, &primary).await;
    }
}

/// The breaker of a server that doesn't answer opens, although the others answer all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_breaker_opens_for_a_silent_server_while_others_answer() {
    const OPERATION_TIMEOUT: Duration = Duration::from_secs(1);
    const READS: u32 = 20;
    const ELSEWHERE: &str = "p-002";
    for flavor in Flavor::OF_CLUSTERS {
        let cluster = Cluster::start(flavor).await;
        let backend = Backend::builder(&cluster.url()).operation_timeout(OPERATION_TIMEOUT).breaker_threshold(2);
        let (cache, primary) = (products(&backend.connect().await.unwrap()), Primary::of(loaf(1)));
        primary.put(Product { id: ELSEWHERE.to_owned(), ..loaf(2) });
        assert_ne!(cluster.owner(KEY).await, cluster.owner("cache:billing:product:p-002").await);
        for id in ["p-001", ELSEWHERE] {
            cache.get(id, primary.loader()).await.unwrap();
        }
        let silent_servers = cluster.pair(KEY).await;
        silent_servers.iter().for_each(|server| server.freeze());
        let mut waited = Duration::ZERO;
        for read in 0..2 * READS {
            let begun = Instant::now();
            let silent = lookup(&cache, primary.loader()).await.unwrap();
            assert_eq!(silent.outcome, Outcome::Bypassed);
            if read >= READS {
                waited += begun.elapsed();
            }
            let other = cache.lookup(ELSEWHERE, primary.loader()).await.unwrap();
            assert_eq!(other.outcome, Outcome::Hit, "{flavor:?}");
        }
        assert!(waited < READS * OPERATION_TIMEOUT / 4, "{flavor:?}: {READS} reads waited {waited:?}");
        silent_servers.iter().for_each(|server| server.thaw());
    }
}

#[tokio::test]
async fn a_url_of_the_wrong_kind_is_an_error_that_names_the_right_one() {
    for flavor in Flavor::OF_CLUSTERS {
        let (server, cluster) = (Server::start(flavor).await, Cluster::start(flavor).await);
        let url = server.url().replace("redis://", "redis+cluster://");
        let text = Backend::connect(&url).await.unwrap_err().to_string();
        assert!(text.ends_with("this is a single server: write redis://"), "{text}");

        let (mut texts, mut replicas) = (Vec::new(), 0);
        for server in &cluster.servers {
            let backend = match Backend::connect(&server.url()).await {
                Ok(backend) => backend,
                Err(replica) => {
                    assert!(replica.to_string().contains("redis+cluster://"), "{replica}");
                    replicas += 1;
                    continue;
                }
            };
            let cache = products(&backend);
            texts.extend(cache.peek("p-001").await.map_err(|error| error.to_string()).err());
            let update = cache.update_field("p-001", Product::FIELDS.stock, 2).await;
            texts.extend(update.map_err(|error| error.to_string()).err());
        }
        assert_eq!(texts.len(), (cluster.servers.len() - replicas - 1) * 2, "one has the key");
        for text in texts {
            assert!(text.contains("redis+cluster://"), "{text}");
        }
    }
}

/// Any server of a cluster can be asked about the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_url_may_name_a_replica_alone() {
    for flavor in Flavor::OF_CLUSTERS {
        let cluster = Cluster::start(flavor).await;
        for server in &cluster.servers {
            let role: Vec<redis::Value> = redis::cmd("ROLE").query_async(&mut server.client().await).await.unwrap();
            if role[0] != redis::Value::BulkString(b"slave".to_vec()) {
                continue;
            }
            let url = server.url().replace("redis://", "redis+cluster://");
            let (cache, primary) = (products(&connect(&url).await), Primary::of(loaf(1)));
            lookup(&cache, primary.loader()).await.unwrap();
            assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Hit);
            assert!(cache.invalidate("p-001").await.unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalidate_many_reaches_keys_of_many_slots() {
    on_every_cluster(async |_cluster, backend| {
        let (cache, primary) = (products(&backend), Primary::default());
        let ids: Vec<_> = (0..300).map(|id| format!("p-{id}")).collect();
        for id in &ids {
            primary.put(Product { id: id.clone(), ..loaf(1) });
            cache.get(id, primary.loader()).await.unwrap();
        }
        for was_there in [true, false] {
            let invalidated = cache.invalidate_many(&ids).await;
            assert!(invalidated.into_iter().all(|result| result.unwrap() == was_there));
        }
    })
    .await;
}

/// Beyond the bound on failed invalidations, all keys of a type are deleted on all servers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_entries_of_a_type_are_deleted_on_all_servers() {
    for (flavor, moves) in Moves::ON {
        let cluster = Cluster::start_moving(flavor, moves).await;
        let backend = Backend::builder(&cluster.url()).max_pending_invalidations(0);
        let backend = backend.operation_timeout(Duration::from_secs(5)).close_timeout(LIMIT).connect().await.unwrap();
        let (cache, primary) = (products(&backend), Primary::default());
        let ids: Vec<_> = (0..100).map(|id| format!("p-{id}")).collect();
        for id in &ids {
            primary.put(Product { id: id.clone(), ..loaf(1) });
            cache.get(id, primary.loader()).await.unwrap();
        }
        // Keys that are being migrated must not count as deleted.
        let way = cluster.open(KEY).await;
        backend.outage(true);
        cache.invalidate("p-1").await.unwrap_err();
        backend.outage(false);
        tokio::time::sleep(Duration::from_millis(500)).await;
        if moves == Moves::KeyByKey {
            assert!(cache.pending().whole_type, "{flavor:?}: swept while a slot moves");
        }
        cluster.close(KEY, way).await;
        backend.close().await.unwrap();
        for id in &ids {
            assert_eq!(cache.peek(id).await.unwrap(), None);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clear_reaches_all_servers_and_fails_while_a_slot_moves() {
    on_every_cluster(async |cluster, backend| {
        let cache = products(&backend);
        let ids: Vec<_> = (0..100).map(|id| format!("p-{id}")).collect();
        let load = |ids: Vec<String>| async {
            Ok::<_, BoxError>(ids.into_iter().map(|id| Product { id, ..loaf(1) }).collect::<Vec<_>>())
        };
        assert!(cache.get_many(&ids, load).await.iter().all(Result::is_ok));
        // It is the first step of this backend, which doesn't know the slots yet.
        let lazy = Backend::builder(&cluster.url()).operation_timeout(Duration::from_secs(5)).connect_lazy().unwrap();
        assert_eq!(products(&lazy).clear().await.unwrap(), 100);
        for id in &ids {
            assert_eq!(cache.peek(id).await.unwrap(), None);
        }
        let way = cluster.open(KEY).await;
        if cluster.moves == Moves::Atomically {
            // Its server has all of its keys until it changes hands, and passes each deletion on.
            get(&cache, Primary::of(loaf(1)).loader()).await.unwrap();
            assert_eq!(cache.clear().await.unwrap(), 1);
            cluster.close(KEY, way).await;
            assert_eq!(cache.peek("p-001").await.unwrap(), None);
            return;
        }
        let scans = async || {
            let calls = join_all(cluster.servers.iter().map(Server::calls)).await;
            calls.iter().filter_map(|calls| calls.get("scan")).sum::<u64>()
        };
        let before = scans().await;
        cache.clear().await.unwrap_err();
        assert!(cache.pending().whole_type, "keys may be at either server");
        assert_eq!(scans().await, before, "it was scanned in vain");
        cluster.close(KEY, way).await;
        backend.close().await.unwrap();
        assert!(cache.pending().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ping_asks_any_server_and_ends_by_operation_timeout() {
    for flavor in Flavor::OF_CLUSTERS {
        let cluster = Cluster::start(flavor).await;
        let backend = Backend::builder(&cluster.url()).connect_timeout(Duration::from_secs(600));
        let backend = backend.operation_timeout(Duration::from_secs(2)).connect().await.unwrap();
        backend.ping().await.unwrap();
        let (first, others) = cluster.servers.split_first().unwrap();
        first.freeze();
        backend.ping().await.unwrap();
        others.iter().for_each(Server::freeze);
        let ping = tokio::time::timeout(Duration::from_secs(20), backend.ping());
        assert!(ping.await.expect("it waits for connect_timeout").is_err(), "{flavor:?}");
    }
}
