//! Faults of servers and networks under load: every call ends by its deadline, no value is wrong, nothing leaks, and
//! the service works again soon after the server does.

use std::time::Duration;

use cache_aside::EntryState;
use futures_util::StreamExt;
use redis::aio::MultiplexedConnection;
use testkit::proxy::{Lost, Proxy};
use testkit::server::{Flavor, Server, free_port};
use tokio::time::sleep;

use crate::support::fixture::{Gate, Primary, Product, connect, loaf, products, until};
use crate::support::traffic::{LOCK_TTL, OPERATION_TIMEOUT, Seen, Traffic};

/// How soon the service works again once the server does.
const SOON: Duration = Duration::from_secs(1);
const A_WHILE: Duration = Duration::from_millis(300);

/// Causes a fault of a server of each flavor while there is load on it.
async fn on_every_server(settings: &[&str], fault: impl AsyncFn(&mut Server)) -> Vec<Seen> {
    let mut all = Vec::new();
    for flavor in Flavor::ALL {
        println!("on {flavor:?}");
        let mut server = Server::start_with(flavor, settings).await;
        all.push(under_load(&server.url(), &mut server, &fault).await);
    }
    all
}

/// Causes a fault of the network.
async fn over_a_proxy(fault: impl AsyncFn(&Proxy)) -> Vec<Seen> {
    let mut all = Vec::new();
    for flavor in Flavor::ALL {
        println!("on {flavor:?}");
        let mut server = Server::start(flavor).await;
        let proxy = Proxy::to(server.port()).await;
        all.push(under_load(&proxy.url(), &mut server, async |_server| fault(&proxy).await).await);
    }
    all
}

async fn under_load(url: &str, server: &mut Server, fault: impl AsyncFn(&mut Server)) -> Seen {
    let traffic = Traffic::start(url, server).await;
    sleep(A_WHILE).await;
    fault(server).await;
    traffic.is_back_within(SOON).await;
    sleep(A_WHILE).await;
    traffic.stop(server).await
}

/// Sends a command repeatedly for a while, during anything else.
async fn keep_sending(server: &Server, command: &[&str]) {
    let mut operator = server.client().await;
    for _ in 0..20 {
        send(&mut operator, command).await;
        sleep(A_WHILE / 20).await;
    }
}

async fn send(operator: &mut MultiplexedConnection, command: &[&str]) {
    redis::cmd(command[0]).arg(&command[1..]).exec_async(operator).await.unwrap();
}

async fn an_entry_and_a_lease_are_evicted(server: &Server) {
    let client = redis::Client::open(server.url()).unwrap();
    let mut evictions = client.get_async_pubsub().await.unwrap();
    evictions.subscribe("__keyevent@0__:evicted").await.unwrap();
    let (mut entry, mut lease) = (false, false);
    let mut evictions = evictions.on_message();
    while !(entry && lease) {
        let key: String = evictions.next().await.unwrap().get_payload().unwrap();
        entry |= key.starts_with("cache:");
        lease |= key.starts_with("{cache:");
    }
}

async fn info(operator: &mut MultiplexedConnection, figure: &str) -> u64 {
    let info: String = redis::cmd("INFO").query_async(operator).await.unwrap();
    let value = info.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'));
    value.unwrap().trim().parse().unwrap()
}

fn bypassed(seen: &[Seen]) -> bool {
    seen.iter().all(|seen| seen.outcomes.contains_key("Bypassed"))
}

/// Refusals don't open the breaker either. A step that a busy machine delays may.
fn none_refused(seen: &[Seen]) -> bool {
    seen.iter().all(|seen| seen.refused_writes == 0 && (seen.left_alone == 0 || seen.is_unanswered))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_killed_and_comes_back_empty() {
    let seen = on_every_server(&[], async |server| {
        server.kill().await;
        sleep(A_WHILE).await;
        server.restart().await;
    })
    .await;
    assert!(bypassed(&seen));
}

const KEEP: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_killed_and_comes_back_with_what_it_had() {
    let seen = on_every_server(&KEEP, async |server| {
        server.kill().await;
        sleep(A_WHILE).await;
        server.restart().await;
    })
    .await;
    assert!(bypassed(&seen));
}

/// The entry and the lease come back from the time before a commit, whose invalidation couldn't reach the stopped
/// server. Without `INFO` nobody knows that it has started again, and sweeps it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_and_leases_that_come_back_are_invalidated_as_ever() {
    for flavor in Flavor::ALL {
        let settings = [&KEEP[..], &["--user", "default", "on", "nopass", "~*", "&*", "+@all", "-info"]].concat();
        let mut server = Server::start_with(flavor, &settings).await;
        let cache = products(&connect(&server.url()).await);
        let primary = Primary::of(loaf(1));
        cache.get("p-001", primary.loader()).await.unwrap();
        let another = Product { id: "p-002".into(), ..loaf(1) };
        primary.put(another.clone());
        let gate = Gate::closed();
        let loading = cache.get("p-002", primary.gated(&gate));
        let loading = tokio::spawn(loading);
        gate.arrival().await;
        server.kill().await;
        server.restart().await;
        while cache.inspect("p-001").await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Record, "{flavor:?}");
        assert!(cache.inspect("p-002").await.unwrap().lock_ttl.is_some(), "{flavor:?}");
        primary.put(loaf(2));
        primary.put(Product { stock: 2, ..another });
        for id in ["p-001", "p-002"] {
            cache.invalidate(id).await.unwrap();
        }
        gate.open();
        assert_eq!(loading.await.unwrap().unwrap().unwrap().stock, 1, "it was loaded before");
        for id in ["p-001", "p-002"] {
            assert_eq!(cache.get(id, primary.loader()).await.unwrap().unwrap().stock, 2, "{flavor:?} {id}");
        }
        assert_eq!(cache.stats().fenced_fills, 1, "{flavor:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_freezes_for_longer_than_a_lease() {
    let seen = on_every_server(&[], async |server| {
        server.freeze();
        sleep(LOCK_TTL * 3).await;
        server.thaw();
    })
    .await;
    assert!(bypassed(&seen));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_pauses_its_clients() {
    for kind in ["ALL", "WRITE"] {
        let seen = on_every_server(&[], async |server| {
            let mut operator = server.client().await;
            let paused = OPERATION_TIMEOUT * 3;
            send(&mut operator, &["CLIENT", "PAUSE", &paused.as_millis().to_string(), kind]).await;
            sleep(paused).await;
        })
        .await;
        assert!(bypassed(&seen), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_kills_its_clients() {
    on_every_server(&[], async |server| {
        let mut operator = server.client().await;
        let before = info(&mut operator, "total_connections_received").await;
        keep_sending(server, &["CLIENT", "KILL", "TYPE", "normal"]).await;
        let reconnected = info(&mut server.client().await, "total_connections_received").await - before;
        assert!(reconnected > 10, "connected again {reconnected} times");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_forgets_its_scripts() {
    let seen = on_every_server(&[], async |server| keep_sending(server, &["SCRIPT", "FLUSH"]).await).await;
    assert!(none_refused(&seen));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_flushed() {
    let seen = on_every_server(&[], async |server| keep_sending(server, &["FLUSHALL"]).await).await;
    assert!(none_refused(&seen));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_evicts_entries_and_leases() {
    on_every_server(&[], async |server| {
        let mut operator = server.client().await;
        let enough = (info(&mut operator, "used_memory").await + (1 << 20)).to_string();
        send(&mut operator, &["CONFIG", "SET", "notify-keyspace-events", "Ee"]).await;
        send(&mut operator, &["CONFIG", "SET", "maxmemory-policy", "allkeys-random"]).await;
        send(&mut operator, &["CONFIG", "SET", "maxmemory", &enough]).await;
        let filling = async {
            for number in 0.. {
                send(&mut operator, &["SET", &format!("filler-{number}"), &"x".repeat(1 << 15)]).await;
            }
        };
        tokio::select! {
            () = filling => {}
            evicted = tokio::time::timeout(Duration::from_secs(20), an_entry_and_a_lease_are_evicted(server)) => {
                evicted.expect("an entry and a lease are evicted");
            }
        }
        send(&mut operator, &["CONFIG", "SET", "maxmemory", "0"]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_has_no_memory_left() {
    let seen = on_every_server(&[], async |server| {
        let mut operator = server.client().await;
        send(&mut operator, &["CONFIG", "SET", "maxmemory", "1kb"]).await;
        sleep(A_WHILE).await;
        send(&mut operator, &["CONFIG", "SET", "maxmemory", "0"]).await;
    })
    .await;
    assert!(bypassed(&seen));
    assert!(none_refused(&seen), "an invalidation needs no memory");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_put_other_types_at_entries_and_leases() {
    let seen = on_every_server(&[], async |server| {
        let mut operator = server.client().await;
        for round in 0..60 {
            let entry = format!("cache:billing:product:p-{}", round % 6);
            let key = if round % 2 == 0 { entry } else { format!("{{{entry}}}:lock") };
            let mut replace = redis::pipe();
            replace.atomic().cmd("DEL").arg(&key).cmd("RPUSH").arg(&key).arg("a list");
            replace.exec_async(&mut operator).await.unwrap();
            sleep(A_WHILE / 60).await;
        }
    })
    .await;
    assert!(none_refused(&seen));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_becomes_a_replica_for_a_while() {
    let seen = on_every_server(&[], async |server| {
        let mut operator = server.client().await;
        send(&mut operator, &["REPLICAOF", "127.0.0.1", &free_port().to_string()]).await;
        sleep(A_WHILE).await;
        send(&mut operator, &["REPLICAOF", "NO", "ONE"]).await;
    })
    .await;
    assert!(seen.iter().all(|seen| seen.refused_writes > 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_replies_are_lost() {
    let fill = redis::Script::new(include_str!("../../../src/backend/redis/scripts/fill.lua"));
    over_a_proxy(async |proxy| {
        for lost in [Lost::ReplySilently, Lost::Reply, Lost::Request] {
            for request in [fill.get_hash(), "DEL", "EXEC", "WATCH", "NX"] {
                let came_by = tokio::time::timeout(Duration::from_secs(10), proxy.lose(request, lost)).await;
                came_by.unwrap_or_else(|_| panic!("no {request} came by"));
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_cut() {
    over_a_proxy(async |proxy| {
        for _ in 0..10 {
            let before = proxy.accepted();
            proxy.cut();
            sleep(A_WHILE / 10).await;
            until(Duration::from_secs(20), "nobody connects again", async || proxy.accepted() > before).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_lost_without_a_trace() {
    over_a_proxy(async |proxy| {
        let before = proxy.accepted();
        proxy.swallow();
        sleep(OPERATION_TIMEOUT * 2).await;
        let again = proxy.accepted() - before;
        assert!(again < 12, "two caches have connected again {again} times: each time a new connection was lost");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_is_slow() {
    for delay in [OPERATION_TIMEOUT / 10, OPERATION_TIMEOUT * 2] {
        let seen = over_a_proxy(async |proxy| {
            proxy.delay(delay);
            sleep(A_WHILE * 3).await;
            proxy.delay(Duration::ZERO);
            // Commands that are on their way arrive late.
            sleep(delay * 2).await;
        })
        .await;
        assert!(delay < OPERATION_TIMEOUT || bypassed(&seen));
    }
}
