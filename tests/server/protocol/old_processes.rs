//! Processes with hand-written cache code, beside those with the library. `docs/guide.md` says what they have to send, and what
//! happens otherwise.

use std::time::Duration;

use cache_aside::{Backend, EntryState, Outcome};
use testkit::cluster::{Cluster, Moves, ask};
use testkit::server::{Flavor, Server};

use crate::support::fixture::{
    Primary, builder, connect, load_at_gate, loaf, lookup, on_every_server, products, remembering,
};

const ENTRY: &str = "cache:billing:product:p-001";
const LEASE: &str = "{cache:billing:product:p-001}:lock";
/// `loaf(1)`, but for the name: a command of these tests has no spaces in it.
const OLD_RECORD: &str = "id p-001 name Loaf price_cents 650 stock 1";

/// The library has loaded stock 1. An old process commits stock 2, and sends the commands; the load is stored, or fenced, after
/// some of them. Returns what a later get finds.
async fn found_after(server: &Server, backend: &Backend, commands: &[String], after: usize) -> (Outcome, u32) {
    let (cache, primary) = (products(backend), Primary::of(loaf(1)));
    let (gate, load) = load_at_gate(&cache, &primary).await;
    primary.put(loaf(2));
    let (first, rest) = commands.split_at(after);
    for command in first {
        ask(server, command).await;
    }
    gate.open();
    assert_eq!(load.await.unwrap().unwrap().unwrap().stock, 1, "this get began before the write");
    for command in rest {
        ask(server, command).await;
    }
    let later = lookup(&cache, primary.loader()).await.unwrap();
    cache.invalidate("p-001").await.unwrap();
    (later.outcome, later.value.unwrap().stock)
}

async fn which_dels_fence(server: &Server, backend: &Backend) {
    let [entry, lease] = [ENTRY, LEASE].map(|key| format!("DEL {key}"));
    let not_enough = [(vec![], 0), (vec![entry.clone()], 1), (vec![entry.clone(), lease.clone()], 1)];
    for (commands, after) in not_enough {
        let found = found_after(server, backend, &commands, after).await;
        assert_eq!(found, (Outcome::Hit, 1), "{commands:?}");
    }
    let both = [format!("DEL {LEASE} {ENTRY}"), format!("DEL {ENTRY} {LEASE}")];
    let [lease_first, entry_first] = both.map(|command| vec![command]);
    for commands in [lease_first, entry_first, vec![lease, entry]] {
        for after in 0..=commands.len() {
            let found = found_after(server, backend, &commands, after).await;
            assert_eq!(found, (Outcome::Loaded, 2), "{commands:?}, and the load ends after {after}");
        }
    }
}

#[tokio::test]
async fn a_del_of_the_entry_alone_does_not_fence_and_a_del_of_both_does() {
    on_every_server(async |server, backend| which_dels_fence(server, &backend).await).await;
}

#[tokio::test]
async fn in_a_cluster_one_del_can_have_both_keys() {
    for (flavor, moves) in Moves::ON {
        let cluster = Cluster::start_moving(flavor, moves).await;
        let (owner, backend) = (&cluster.servers[cluster.owner(ENTRY).await], connect(&cluster.url()).await);
        which_dels_fence(owner, &backend).await;
        if moves == Moves::Atomically {
            let way = cluster.open(ENTRY).await;
            which_dels_fence(owner, &backend).await;
            cluster.close(ENTRY, way).await;
        }
    }
}

#[tokio::test]
async fn while_a_slot_moves_one_del_of_both_keys_is_refused_and_two_dels_fence() {
    for flavor in Flavor::OF_CLUSTERS {
        let cluster = Cluster::start(flavor).await;
        let (cache, primary) = (products(&connect(&cluster.url()).await), Primary::of(loaf(1)));
        let (gate, load) = load_at_gate(&cache, &primary).await;
        primary.put(loaf(2));
        let way = cluster.open(ENTRY).await;
        let [mut source, mut target] = [cluster.servers[way.0].client().await, cluster.servers[way.1].client().await];
        let mut del = async |keys: &[&str]| redis::cmd("DEL").arg(keys).exec_async(&mut source).await;
        assert_eq!(del(&[LEASE, ENTRY]).await.unwrap_err().code(), Some("TRYAGAIN"));
        del(&[LEASE]).await.unwrap();
        assert_eq!(del(&[ENTRY]).await.unwrap_err().code(), Some("ASK"));
        redis::pipe().cmd("ASKING").cmd("DEL").arg(ENTRY).exec_async(&mut target).await.unwrap();
        cluster.close(ENTRY, way).await;
        gate.open();
        load.await.unwrap().unwrap();
        let later = lookup(&cache, primary.loader()).await.unwrap();
        assert_eq!((later.outcome, later.value.unwrap().stock), (Outcome::Loaded, 2));
    }
}

#[tokio::test]
async fn a_record_that_is_loaded_between_the_two_dels_is_new_and_is_removed() {
    on_every_server(async |server, backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        let (gate, load) = load_at_gate(&cache, &primary).await;
        primary.put(loaf(2));
        ask(server, &format!("DEL {LEASE}")).await;
        let elsewhere = lookup(&products(&backend), primary.loader()).await.unwrap();
        assert_eq!((elsewhere.outcome, elsewhere.value.unwrap().stock), (Outcome::Loaded, 2));
        gate.open();
        load.await.unwrap().unwrap();
        assert_eq!(cache.peek("p-001").await.unwrap().unwrap().stock, 2, "the old load was fenced");
        ask(server, &format!("DEL {ENTRY}")).await;
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
    })
    .await;
}

#[tokio::test]
async fn an_hset_of_an_old_record_is_not_fenced_and_lasts_for_ever() {
    on_every_server(async |server, backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(2)));
        cache.invalidate("p-001").await.unwrap();
        ask(server, &format!("HSET {ENTRY} {OLD_RECORD}")).await;
        let later = lookup(&cache, primary.loader()).await.unwrap();
        assert_eq!((later.outcome, later.value.unwrap().stock), (Outcome::Hit, 1));
        assert_eq!(ask(server, &format!("PTTL {ENTRY}")).await, "-1");
    })
    .await;
}

#[tokio::test]
async fn an_hset_revokes_no_lease() {
    on_every_server(async |server, backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(2)));
        let (gate, load) = load_at_gate(&cache, &primary).await;
        ask(server, &format!("HSET {ENTRY} {OLD_RECORD}")).await;
        gate.open();
        load.await.unwrap().unwrap();
        assert_eq!(cache.peek("p-001").await.unwrap().as_deref(), Some(&loaf(2)), "the load has replaced it");
    })
    .await;
}

#[tokio::test]
async fn an_hset_on_a_not_found_entry_makes_it_unreadable() {
    on_every_server(async |server, backend| {
        let cache = remembering(&backend);
        let primary = Primary::default();
        cache.get("p-001", primary.loader()).await.unwrap();
        assert_eq!(ask(server, &format!("HGETALL {ENTRY}")).await, "~meta\nabsent");
        primary.put(loaf(2));
        ask(server, &format!("HSET {ENTRY} {OLD_RECORD}")).await;
        assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Unreadable);
        let later = lookup(&cache, primary.loader()).await.unwrap();
        assert_eq!((later.outcome, later.value.unwrap().stock), (Outcome::Loaded, 2));
    })
    .await;
}

#[tokio::test]
async fn an_hset_and_expire_keep_the_grace_period_so_the_record_is_stale_too_early() {
    on_every_server(async |server, backend| {
        let grace = Duration::from_secs(60);
        let (cache, primary) = (builder(&backend).stale_if_error(grace).build().unwrap(), Primary::of(loaf(1)));
        cache.get("p-001", primary.loader()).await.unwrap();
        ask(server, &format!("HSET {ENTRY} stock 2")).await;
        assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Record);
        ask(server, &format!("EXPIRE {ENTRY} 30")).await;
        assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Stale);
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
    })
    .await;
}

#[tokio::test]
async fn a_string_at_the_entrys_key_is_replaced_by_a_hash_that_old_processes_cannot_get() {
    on_every_server(async |server, backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(2)));
        ask(server, &format!("SET {ENTRY} {{\"stock\":1}} EX 30")).await;
        assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Unreadable);
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
        let get = redis::cmd("GET").arg(ENTRY).exec_async(&mut server.client().await).await;
        assert_eq!(get.unwrap_err().code(), Some("WRONGTYPE"));
    })
    .await;
}

#[tokio::test]
async fn a_lock_without_a_ttl_at_the_leases_key_is_removed() {
    on_every_server(async |server, backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(2)));
        ask(server, &format!("SET {LEASE} 1")).await;
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
        assert_eq!(ask(server, &format!("EXISTS {LEASE}")).await, "0");
        assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Record);
    })
    .await;
}
