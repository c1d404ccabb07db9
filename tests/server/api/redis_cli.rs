//! The shell commands of `docs/guide.md` and `docs/operations.md` that count and clear with `redis-cli`, taken from the pages.

use std::process::Command;

use cache_aside::{BoxError, Cache, Cacheable, EntryState, Outcome};
use testkit::server::Server;

use crate::support::fixture::{
    Gate, Primary, Product, connect_under, load_at_gate, loaf, lookup, on_every_server, products, remembering,
};

/// Puts a `redis-cli` that knows the port before the real one. Written by the shell, since a file that this process has open
/// for writing can't be executed, and a child of another test would keep it open.
const SETUP: &str = r#"
printf '#!/bin/sh\nexec %s -p %s "$@"\n' "$(command -v redis-cli)" "$PORT" > "$DIR/redis-cli"
chmod +x "$DIR/redis-cli"
PATH="$DIR:$PATH"
"#;

fn shell(server: &Server, commands: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-ec", &format!("{SETUP}{commands}")]).env("PORT", server.port().to_string()).env("DIR", dir.path());
    let output = shell.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{commands}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The blocks of shell commands in a section of a page.
fn blocks<const N: usize>(page: &str, section: &str) -> [String; N] {
    let page = std::fs::read_to_string(format!("{}/../docs/{page}.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let section = page.split("\n## ").find(|text| text.starts_with(section)).unwrap();
    let blocks = section.split("```sh\n").skip(1).map(|block| block.split_once("```").unwrap().0.to_owned());
    blocks.collect::<Vec<_>>().try_into().unwrap()
}

#[tokio::test]
async fn the_guides_commands_count_entries_and_leases_and_show_an_entry() {
    let [counting, ..] = blocks::<4>("guide", "Counting and clearing");
    let [count_entries, count_leases, show, lifetime] = counting.lines().collect::<Vec<_>>().try_into().unwrap();
    on_every_server(async |server, backend| {
        let cache = remembering(&backend);
        let primary = Primary::of(loaf(42));
        primary.put(Product { id: "p-002".into(), ..loaf(1) });
        for id in ["p-002", "gone"] {
            cache.get(id, primary.loader()).await.unwrap();
        }
        let other = "cache:billing:product_2:p-001";
        redis::cmd("SET").arg(&[other, ""]).exec_async(&mut server.client().await).await.unwrap();
        let counts = || [count_entries, count_leases].map(|line| shell(server, line).trim().to_owned());
        let (gate, load) = load_at_gate(&cache, &primary).await;
        assert_eq!(counts(), ["2", "1"]);
        gate.open();
        load.await.unwrap().unwrap();
        assert_eq!(counts(), ["3", "0"]);
        let shown = shell(server, show);
        let mut words: Vec<_> = shown.lines().collect();
        words.sort_unstable();
        assert_eq!(words, ["42", "650", "Sourdough Loaf", "id", "name", "p-001", "price_cents", "stock"]);
        assert!((1..=30_000).contains(&shell(server, lifetime).trim().parse::<u32>().unwrap()));
    })
    .await;
}

/// Runs a `DEL` while a load is under way that has read the row before the last commit. Returns what a later get finds.
async fn found_after(server: &Server, cache: &Cache<Product>, del: &str) -> (Outcome, u32) {
    let primary = Primary::of(loaf(1));
    let (gate, load) = load_at_gate(cache, &primary).await;
    primary.put(loaf(2));
    shell(server, del);
    gate.open();
    load.await.unwrap().unwrap();
    let later = lookup(cache, primary.loader()).await.unwrap();
    cache.invalidate("p-001").await.unwrap();
    (later.outcome, later.value.unwrap().stock)
}

#[tokio::test]
async fn the_commands_that_delete_one_record_fence_its_load_and_a_del_of_the_entry_does_not() {
    let [_, by_guide, _, _] = blocks::<4>("guide", "Counting and clearing");
    let [by_operations] = blocks::<1>("operations", "When records expire");
    on_every_server(async |server, backend| {
        let cache = products(&backend);
        for del in [&by_guide, &by_operations] {
            assert_eq!(found_after(server, &cache, del).await, (Outcome::Loaded, 2), "{del}");
        }
        let entry_alone = "redis-cli DEL cache:billing:product:p-001";
        assert_eq!(found_after(server, &cache, entry_alone).await, (Outcome::Hit, 1));
    })
    .await;
}

#[tokio::test]
async fn the_guides_commands_for_a_key_prefix_count_and_delete() {
    let [_, _, prefixed, _] = blocks::<4>("guide", "Counting and clearing");
    let [count_entries, count_leases, del] = prefixed.lines().collect::<Vec<_>>().try_into().unwrap();
    on_every_server(async |server, without| {
        let cache = products(&connect_under(&server.url(), "team-a:").await);
        let primary = Primary::of(loaf(42));
        lookup(&products(&without), primary.loader()).await.unwrap();
        let counts = || [count_entries, count_leases].map(|line| shell(server, line).trim().to_owned());
        let (gate, load) = load_at_gate(&cache, &primary).await;
        assert_eq!(counts(), ["0", "1"]);
        gate.open();
        load.await.unwrap().unwrap();
        assert_eq!(counts(), ["1", "0"]);
        assert_eq!(shell(server, del), "1\n");
        assert_eq!(found_after(server, &cache, del).await, (Outcome::Loaded, 2));
        assert!(products(&without).peek("p-001").await.unwrap().is_some());
    })
    .await;
}

#[derive(Debug, Cacheable)]
#[cacheable(namespace = "billing")]
struct Invoice {
    #[cacheable(id)]
    tenant: String,
    #[cacheable(id)]
    number: u64,
}

#[tokio::test]
async fn the_guides_commands_clear_one_tenant_and_fence_its_loads() {
    let [.., clearing] = blocks::<4>("guide", "Counting and clearing");
    on_every_server(async |server, backend| {
        let cache: Cache<Invoice> = Cache::new(backend);
        let load = |(tenant, number)| async move { Ok::<_, BoxError>(Some(Invoice { tenant, number })) };
        for id in [("acme", 1), ("acme", 2), ("acme2", 1)] {
            cache.get(id, load).await.unwrap();
        }
        let gate = Gate::closed();
        let under_way = tokio::spawn(cache.get(("acme", 3), {
            let gate = gate.clone();
            move |id| async move {
                gate.pass().await;
                load(id).await
            }
        }));
        gate.arrival().await;
        assert_eq!(shell(server, &clearing), "1\n2\n", "one lease, two entries");
        gate.open();
        assert!(under_way.await.unwrap().unwrap().is_some());
        for number in 1..=3 {
            assert_eq!(cache.lookup(("acme", number), load).await.unwrap().outcome, Outcome::Loaded);
        }
        assert_eq!(cache.inspect(("acme2", 1)).await.unwrap().state, EntryState::Record);
    })
    .await;
}
