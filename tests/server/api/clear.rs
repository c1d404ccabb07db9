//! `clear`: what it removes, what it leaves alone, and what it does to loads that are under way.

use std::time::Duration;

use cache_aside::{Backend, BoxError, Cache, Cacheable, EntryState, Outcome};
use testkit::proxy::{Lost, Proxy};
use testkit::server::{Flavor, Server};

use crate::support::fixture::{
    Primary, Product, builder, connect, get, load_at_gate, loaf, lookup, on_every_backend, products, remembering, until,
};

/// A struct whose name begins like that of `Product`.
#[derive(Debug, Cacheable)]
#[cacheable(namespace = "billing", entity = "product_2")]
struct Other {
    #[cacheable(id)]
    id: String,
}

/// A release of `Product` with keys of its own, which lists the version before it.
#[derive(Debug, Cacheable)]
#[cacheable(namespace = "billing", entity = "product", version = 2, also_invalidates = [none])]
struct Newer {
    #[cacheable(id)]
    id: String,
}

#[tokio::test]
async fn clear_removes_all_entries_of_its_struct_and_no_others() {
    // More than one step of a SCAN finds.
    const RECORDS: u32 = 1_200;
    on_every_backend(async |backend| {
        // The not-found entry has to be there for as long as this takes on a busy machine.
        let cache = remembering(&backend);
        let others = Cache::<Other>::new(backend.clone());
        let elsewhere = builder(&backend).namespace("shipping").build().unwrap();
        assert_eq!(cache.clear().await.unwrap(), 0);
        let load = |ids: Vec<String>| async move {
            let stored = ids.into_iter().filter(|id| id != "gone").map(|id| Product { id, ..loaf(1) });
            Ok::<_, BoxError>(stored.collect::<Vec<_>>())
        };
        let ids: Vec<_> = (1..RECORDS).map(|id| id.to_string()).chain(["gone".to_owned()]).collect();
        assert!(cache.get_many(&ids, load).await.iter().all(Result::is_ok));
        others.get("1", |id| async move { Ok::<_, BoxError>(Some(Other { id })) }).await.unwrap();
        elsewhere.get("p-001", Primary::of(loaf(1)).loader()).await.unwrap();

        assert_eq!(cache.clear().await.unwrap(), u64::from(RECORDS), "the not-found entry counts too");
        for id in ["1", "500", "gone"] {
            assert_eq!(cache.inspect(id).await.unwrap().state, EntryState::Missing);
        }
        assert_eq!(others.inspect("1").await.unwrap().state, EntryState::Record);
        assert_eq!(elsewhere.inspect("p-001").await.unwrap().state, EntryState::Record);
        assert_eq!(cache.clear().await.unwrap(), 0, "nothing is left");
        assert!(cache.pending().is_empty());
    })
    .await;
}

#[tokio::test]
async fn clear_reaches_the_versions_that_are_listed_and_counts_their_entries() {
    on_every_backend(async |backend| {
        let (older, newer) = (products(&backend), Cache::<Newer>::new(backend));
        let load = |id| async move { Ok::<_, BoxError>(Some(Newer { id })) };
        for cleared_by_newer in [true, false] {
            older.get("p-001", Primary::of(loaf(1)).loader()).await.unwrap();
            newer.get("p-001", load).await.unwrap();
            newer.get("p-002", load).await.unwrap();
            if cleared_by_newer {
                assert_eq!(newer.clear().await.unwrap(), 3);
                assert_eq!(older.peek("p-001").await.unwrap(), None);
            } else {
                assert_eq!(older.clear().await.unwrap(), 1, "it doesn't list the newer version");
                assert!(newer.peek("p-001").await.unwrap().is_some());
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_load_from_before_clear_is_not_stored_and_no_later_get_waits_for_it() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        let (gate, early) = load_at_gate(&cache, &primary).await;
        primary.put(loaf(2));
        assert_eq!(cache.clear().await.unwrap(), 0, "a lease is no entry");
        assert_eq!(cache.inspect("p-001").await.unwrap().lock_ttl, None);
        let late = tokio::time::timeout(Duration::from_secs(20), lookup(&cache, primary.loader()));
        let late = late.await.expect("it waits for the load that is held").unwrap();
        assert_eq!((late.outcome, late.value.unwrap().stock), (Outcome::Loaded, 2));
        gate.open();
        assert_eq!(early.await.unwrap().unwrap().unwrap().stock, 1, "it asked before");
        assert_eq!(cache.peek("p-001").await.unwrap().as_deref(), Some(&loaf(2)));
        assert_eq!(cache.stats().fenced_fills, 1);
    })
    .await;
}

#[tokio::test]
async fn clear_fences_the_loads_of_other_processes() {
    on_every_backend(async |backend| {
        let (here, there, primary) = (products(&backend), products(&backend), Primary::of(loaf(1)));
        let (gate, early) = load_at_gate(&there, &primary).await;
        primary.put(loaf(2));
        here.clear().await.unwrap();
        gate.open();
        early.await.unwrap().unwrap();
        assert_eq!(get(&there, primary.loader()).await.unwrap().as_deref(), Some(&loaf(2)));
        assert_eq!(there.stats().fenced_fills, 1);
    })
    .await;
}

/// The fill comes after the first pass: if that were the one over the entries, the old entry would stay.
#[tokio::test]
async fn a_fill_that_arrives_within_clear_is_removed() {
    for flavor in Flavor::ALL {
        let server = Server::start(flavor).await;
        let proxy = Proxy::to(server.port()).await;
        // So long that no other connection is tried while the reply is held.
        let backend = Backend::builder(&proxy.url()).operation_timeout(Duration::from_secs(60));
        let here = products(&backend.connect().await.unwrap());
        let (there, primary) = (products(&connect(&server.url()).await), Primary::of(loaf(1)));
        let (gate, early) = load_at_gate(&there, &primary).await;
        primary.put(loaf(2));
        let clear = tokio::spawn(async move { here.clear().await });
        proxy.lose("SCAN", Lost::ReplyForNow).await;
        let is_scanned = async || server.calls().await.get("scan").is_some_and(|calls| *calls > 0);
        until(Duration::from_secs(20), "no SCAN has come", is_scanned).await;
        gate.open();
        early.await.unwrap().unwrap();
        assert_eq!(there.stats().fenced_fills, 0, "{flavor:?}: no lease has been deleted yet");
        proxy.release();
        clear.await.unwrap().unwrap();
        assert_eq!(there.inspect("p-001").await.unwrap().state, EntryState::Missing, "{flavor:?}");
    }
}

#[tokio::test]
async fn clear_does_nothing_before_it_is_polled() {
    let (cache, primary) = (products(&Backend::connect("memory://").await.unwrap()), Primary::of(loaf(1)));
    get(&cache, primary.loader()).await.unwrap();
    drop(cache.clear());
    assert!(cache.pending().is_empty());
    assert!(cache.peek("p-001").await.unwrap().is_some());
}
