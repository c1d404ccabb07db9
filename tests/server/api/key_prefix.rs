//! Key prefixes: what keys look like, and that backends with different ones share nothing.

use std::time::Duration;

use cache_aside::{Backend, BoxError, Cache, Cacheable, EntryState, Error};
use testkit::cluster::ask;
use testkit::server::{Flavor, Server};

use crate::near::{loaded, near, stock, warm, write_elsewhere};
use crate::support::fixture::{
    Primary, connect, connect_under, get, lives_a_whole_life, load_at_gate, loaf, on_every_server, products, until,
};

/// A struct without a namespace, and with the name of one.
#[derive(Debug, Cacheable)]
#[cacheable(entity = "billing", version = 2, also_invalidates = [none])]
struct Billing {
    #[cacheable(id)]
    id: String,
}

#[derive(Debug, Cacheable)]
#[cacheable(entity = "billing")]
struct BillingBefore {
    #[cacheable(id)]
    id: String,
}

const LIMIT: Duration = Duration::from_secs(20);

async fn keys(server: &Server) -> Vec<String> {
    let mut keys: Vec<_> = ask(server, "KEYS *").await.lines().map(str::to_owned).collect();
    keys.sort();
    keys
}

#[tokio::test]
async fn both_keys_begin_with_the_prefix() {
    on_every_server(async |server, _| {
        let backend = connect_under(&server.url(), "team-a:").await;
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        let (gate, load) = load_at_gate(&cache, &primary).await;
        assert_eq!(keys(server).await, ["team-a:lock:{team-a:cache:billing:product:p-001}"]);
        gate.open();
        load.await.unwrap().unwrap();
        assert_eq!(keys(server).await, ["team-a:cache:billing:product:p-001"]);
        assert_eq!(cache.inspect("p-001").await.unwrap().key, "team-a:cache:billing:product:p-001");
        backend.outage(true);
        let error = cache.invalidate("p-001").await.unwrap_err().to_string();
        assert!(error.contains("team-a:cache:billing:product:p-001"), "{error}");
        assert_eq!(cache.pending().keys, ["team-a:cache:billing:product:p-001"]);
        backend.outage(false);
        backend.close().await.unwrap();
        assert!(keys(server).await.is_empty());

        let load = |id| async move { Ok::<_, BoxError>(Some(Billing { id })) };
        Cache::new(backend).get("1", load).await.unwrap();
        assert_eq!(keys(server).await, ["team-a:cache:billing@2:1"]);
    })
    .await;
}

#[tokio::test]
async fn everything_works_under_a_prefix() {
    lives_a_whole_life(&products(&connect_under("memory://", "team-a:").await)).await;
    on_every_server(async |server, _| {
        let backend = connect_under(&server.url(), "team-a:").await;
        lives_a_whole_life(&products(&backend)).await;
        let (newer, older) = (Cache::<Billing>::new(backend.clone()), Cache::<BillingBefore>::new(backend));
        newer.get("1", |id| async move { Ok::<_, BoxError>(Some(Billing { id })) }).await.unwrap();
        let load = |id| async move { Ok::<_, BoxError>(Some(BillingBefore { id })) };
        for clears in [false, true] {
            older.get("1", load).await.unwrap();
            if clears {
                assert_eq!(newer.clear().await.unwrap(), 1);
            } else {
                newer.invalidate("1").await.unwrap();
            }
            assert_eq!(older.inspect("1").await.unwrap().state, EntryState::Missing);
        }
    })
    .await;
}

/// Each of them begins like another's keys, or like keys without a prefix.
const PREFIXES: [&str; 6] = ["a:", "a:b:", "a", "lock:", "a:cache:billing:", "a:lock:"];

#[tokio::test]
async fn backends_with_different_prefixes_share_nothing() {
    on_every_server(async |server, without| {
        let mut backends = vec![without];
        for prefix in PREFIXES {
            backends.push(connect_under(&server.url(), prefix).await);
        }
        let caches: Vec<_> = backends.iter().map(products).collect();
        let others: Vec<Cache<Billing>> = backends.iter().cloned().map(Cache::new).collect();
        let primaries: Vec<_> = (0..).map(|at| Primary::of(loaf(at))).take(caches.len()).collect();
        let fill = async || {
            for ((cache, other), primary) in caches.iter().zip(&others).zip(&primaries) {
                get(cache, primary.loader()).await.unwrap();
                other.get("p-001", |id| async move { Ok::<_, BoxError>(Some(Billing { id })) }).await.unwrap();
            }
        };
        fill().await;
        for (at, cache) in caches.iter().enumerate() {
            assert_eq!(cache.peek("p-001").await.unwrap(), Some(loaf(at.try_into().unwrap()).into()));
        }
        for at in 0..caches.len() {
            for clears in [false, true] {
                fill().await;
                if clears {
                    assert_eq!(caches[at].clear().await.unwrap(), 1);
                } else {
                    assert!(caches[at].invalidate("p-001").await.unwrap());
                }
                for (other_at, cache) in caches.iter().enumerate() {
                    let is_left = cache.peek("p-001").await.unwrap().is_some();
                    assert_eq!(is_left, other_at != at, "{at}, {other_at}, {clears}");
                    assert_eq!(others[other_at].inspect("p-001").await.unwrap().state, EntryState::Record);
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_clear_fences_the_loads_under_its_prefix_and_no_others() {
    on_every_server(async |server, without| {
        let [here, longer] = [connect_under(&server.url(), "a:").await, connect_under(&server.url(), "a:b:").await];
        let caches = [&without, &here, &longer].map(products);
        for at in 0..caches.len() {
            let primary = Primary::of(loaf(1));
            let mut loads = Vec::new();
            for cache in &caches {
                cache.reset_stats();
                loads.push(load_at_gate(cache, &primary).await);
            }
            assert_eq!(caches[at].clear().await.unwrap(), 0);
            for (gate, load) in loads {
                gate.open();
                load.await.unwrap().unwrap();
            }
            let fenced = caches.each_ref().map(|cache| cache.stats().fenced_fills);
            assert_eq!(fenced, [0, 1, 2].map(|of| u64::from(of == at)));
            for cache in &caches {
                cache.invalidate("p-001").await.unwrap();
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn near_caches_learn_of_changes_under_their_prefix_alone() {
    on_every_server(async |server, without| {
        let backend = connect_under(&server.url(), "team-a:").await;
        let (cache, primary) = (near(&backend), Primary::of(loaf(1)));
        loaded(&cache, &primary).await;
        warm(&cache, &primary).await;
        let told = cache.stats().near_invalidations;
        let foreign = products(&without);
        get(&foreign, primary.loader()).await.unwrap();
        assert!(foreign.invalidate("p-001").await.unwrap());
        let elsewhere = products(&connect_under(&server.url(), "team-a:").await);
        write_elsewhere(&elsewhere, &primary, 2).await;
        until(LIMIT, "the old record is kept", async || stock(&cache, &primary).await == 2).await;
        // Of the deletion of the entry, and of its next fill.
        until(LIMIT, "a message is missing", async || cache.stats().near_invalidations - told >= 2).await;
        assert_eq!(cache.stats().near_invalidations - told, 2);
        warm(&cache, &primary).await;
    })
    .await;
}

#[tokio::test]
async fn a_prefix_that_would_be_ambiguous_or_a_pattern_is_refused() {
    for prefix in ["", "team a:", "team-*:", "{team}:", "team/", "cache:", "x:cache:", "my-cache:y"] {
        for url in ["memory://", "redis://127.0.0.1:1"] {
            let builder = Backend::builder(url).key_prefix(prefix);
            for error in [builder.clone().connect_lazy().unwrap_err(), builder.connect().await.unwrap_err()] {
                assert!(matches!(error, Error::Config { .. }), "{error:?}");
                assert!(error.to_string().contains(&format!("the key prefix {prefix:?}")), "{error}");
            }
        }
    }
    let server = Server::start(Flavor::Valkey91).await;
    for prefix in ["A.z_0-9:", "team", "cache", "my-cache:app:"] {
        lives_a_whole_life(&products(&connect_under(&server.url(), prefix).await)).await;
    }
    let backend = connect(&server.url()).await;
    assert_eq!(products(&backend).inspect("p-001").await.unwrap().key, "cache:billing:product:p-001");
}
