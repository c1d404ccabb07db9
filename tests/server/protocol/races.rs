//! The races that the protocol prevents, each forced: by a gate in the loader, a revoked or expired lease, a dead
//! holder.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cache_aside::{Backend, EntryState, Outcome};

use crate::support::fixture::{
    Gate, Primary, Product, builder, get, load_at_gate, loaf, lookup, on_every_backend, on_every_server, products,
    settle,
};

#[tokio::test]
async fn an_invalidation_during_a_load_is_not_overwritten() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        let (gate, early) = load_at_gate(&cache, &primary).await;
        primary.put(loaf(2));
        assert!(!cache.invalidate("p-001").await.unwrap());
        // This one starts after `invalidate` has returned, and finds the old load under way.
        let late = tokio::spawn(get(&cache, primary.loader()));
        settle().await;
        gate.open();
        assert_eq!(early.await.unwrap().unwrap().as_deref(), Some(&loaf(1)));
        assert_eq!(late.await.unwrap().unwrap().as_deref(), Some(&loaf(2)));
        assert_eq!(cache.peek("p-001").await.unwrap().as_deref(), Some(&loaf(2)));
        assert_eq!((cache.stats().fenced_fills, primary.loads()), (1, 2));
    })
    .await;
}

#[tokio::test]
async fn an_update_during_a_load_is_not_overwritten() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        let (gate, early) = load_at_gate(&cache, &primary).await;
        primary.put(loaf(2));
        assert!(!cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap(), "nothing there to update");
        let late = tokio::spawn(get(&cache, primary.loader()));
        settle().await;
        gate.open();
        assert_eq!(early.await.unwrap().unwrap().as_deref(), Some(&loaf(1)));
        assert_eq!(late.await.unwrap().unwrap().as_deref(), Some(&loaf(2)));
        assert_eq!(cache.peek("p-001").await.unwrap().as_deref(), Some(&loaf(2)));
        assert_eq!(cache.stats().fenced_fills, 1);
    })
    .await;
}

#[tokio::test]
async fn a_load_that_finds_nothing_does_not_hide_a_record_created_meanwhile() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::default());
        let (gate, early) = load_at_gate(&cache, &primary).await;
        primary.put(loaf(1));
        cache.invalidate("p-001").await.unwrap();
        gate.open();
        assert_eq!(early.await.unwrap().unwrap(), None);
        assert_eq!(cache.get("p-001", primary.loader()).await.unwrap().as_deref(), Some(&loaf(1)));
    })
    .await;
}

#[tokio::test]
async fn an_invalidation_by_another_process_revokes_the_load_too() {
    on_every_backend(async |backend| {
        let (here, there) = (products(&backend), products(&backend));
        let primary = Primary::of(loaf(1));
        let (gate, early) = load_at_gate(&here, &primary).await;
        primary.put(loaf(2));
        there.invalidate("p-001").await.unwrap();
        assert_eq!(there.get("p-001", primary.loader()).await.unwrap().as_deref(), Some(&loaf(2)));
        gate.open();
        early.await.unwrap().unwrap();
        assert_eq!(here.get("p-001", primary.loader()).await.unwrap().as_deref(), Some(&loaf(2)));
        assert_eq!((here.stats().fenced_fills, primary.loads()), (1, 2));
    })
    .await;
}

#[tokio::test]
async fn a_fill_whose_lease_ran_out_writes_nothing() {
    on_every_backend(async |backend| {
        let cache = builder(&backend).lock_ttl(Duration::from_millis(60)).build().unwrap();
        let primary = Primary::of(loaf(1));
        let (gate, early) = load_at_gate(&cache, &primary).await;
        // Nobody can renew the lease now.
        backend.outage(true);
        tokio::time::sleep(Duration::from_millis(200)).await;
        backend.outage(false);
        assert_eq!(cache.inspect("p-001").await.unwrap().lock_ttl, None, "it has run out");
        gate.open();
        assert_eq!(early.await.unwrap().unwrap().as_deref(), Some(&loaf(1)));
        assert_eq!(cache.stats().fenced_fills, 1);
        assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Missing);
    })
    .await;
}

#[tokio::test]
async fn a_get_that_waits_for_another_process_takes_its_entry_and_does_not_load() {
    on_every_backend(async |backend| {
        let primary = Primary::of(loaf(1)).with_latency(Duration::from_millis(150));
        let caches: Vec<_> = (0..4).map(|_| products(&backend)).collect();
        let gets: Vec<_> = caches.iter().map(|cache| tokio::spawn(lookup(cache, primary.loader()))).collect();
        let mut outcomes = Vec::new();
        for get in gets {
            outcomes.push(get.await.unwrap().unwrap().outcome);
        }
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Loaded).count(), 1, "{outcomes:?}");
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Waited).count(), 3, "{outcomes:?}");
        assert_eq!(primary.loads(), 1);
        assert_eq!(caches[0].inspect("p-001").await.unwrap().lock_ttl, None, "no lease stays");
    })
    .await;
}

#[tokio::test]
async fn a_dropped_get_leaves_its_load_running() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        let (gate, first) = load_at_gate(&cache, &primary).await;
        let second = tokio::spawn(lookup(&cache, primary.loader()));
        settle().await;
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        gate.open();
        let joined = second.await.unwrap().unwrap();
        assert_eq!((joined.outcome, joined.value.as_deref()), (Outcome::Coalesced, Some(&loaf(1))));
        let inspection = cache.inspect("p-001").await.unwrap();
        assert_eq!((inspection.state, inspection.lock_ttl), (EntryState::Record, None));
        assert_eq!(primary.loads(), 1);
    })
    .await;
}

#[tokio::test]
async fn the_load_of_an_only_get_that_was_dropped_still_fills() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        let (gate, only) = load_at_gate(&cache, &primary).await;
        only.abort();
        assert!(only.await.unwrap_err().is_cancelled());
        gate.open();
        let began = Instant::now();
        while cache.inspect("p-001").await.unwrap().state != EntryState::Record {
            assert!(began.elapsed() < Duration::from_secs(5), "it was not filled");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(cache.inspect("p-001").await.unwrap().lock_ttl, None);
        assert_eq!(primary.loads(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_get_takes_over_from_a_process_that_died_while_loading() {
    on_every_server(async |server, backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        let mut dead = server.client().await;
        let lock = "{cache:billing:product:p-001}:lock";
        let began = Instant::now();
        redis::cmd("SET").arg(&[lock, "a dead token", "PX", "300"]).exec_async(&mut dead).await.unwrap();
        let lookup = cache.lookup("p-001", primary.loader()).await.unwrap();
        assert_eq!((lookup.outcome, primary.loads()), (Outcome::Loaded, 1));
        assert!(began.elapsed() >= Duration::from_millis(250), "{:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    })
    .await;
}

/// Many unforced rounds of a writer against readers: a get sees at least the writes that had returned before it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_get_is_older_than_the_invalidations_that_returned_before_it() {
    on_every_backend(async |backend| {
        let caches = [products(&backend), products(&backend)];
        let primary = Primary::of(loaf(0)).with_latency(Duration::from_millis(2));
        let returned = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let readers: Vec<_> = (0..16)
            .map(|reader| {
                let (cache, primary, returned) = (caches[reader % 2].clone(), primary.clone(), returned.clone());
                tokio::spawn(async move {
                    loop {
                        let floor = returned.load(Ordering::SeqCst);
                        let stock = cache.get("p-001", primary.loader()).await.unwrap().unwrap().stock;
                        assert!(stock >= floor, "read {stock} after the invalidation of {floor} had returned");
                        if floor == u32::MAX >> 1 {
                            return;
                        }
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for stock in 1..=200 {
            primary.put(loaf(stock));
            caches[0].invalidate("p-001").await.unwrap();
            returned.store(stock, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_micros(u64::from(stock % 7) * 700)).await;
        }
        primary.put(loaf(u32::MAX));
        caches[1].invalidate("p-001").await.unwrap();
        returned.store(u32::MAX >> 1, Ordering::SeqCst);
        for reader in readers {
            reader.await.unwrap();
        }
        assert!(caches[0].stats().hits + caches[1].stats().hits > 0);
    })
    .await;
}

#[tokio::test]
async fn a_get_after_an_invalidation_does_not_wait_for_the_load_that_it_revoked() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        let (gate, early) = load_at_gate(&cache, &primary).await;
        primary.put(loaf(2));
        cache.invalidate("p-001").await.unwrap();
        // The gate is still closed.
        let late = tokio::time::timeout(Duration::from_secs(5), get(&cache, primary.loader())).await;
        assert_eq!(late.unwrap().unwrap().as_deref(), Some(&loaf(2)));
        gate.open();
        assert_eq!(early.await.unwrap().unwrap().as_deref(), Some(&loaf(1)));
        assert_eq!(cache.peek("p-001").await.unwrap().as_deref(), Some(&loaf(2)));
    })
    .await;
}

/// Another process has invalidated: this one finds out when the fill of its long load is fenced.
#[tokio::test(start_paused = true)]
async fn gets_too_late_for_a_long_load_share_the_next() {
    let backend = Backend::connect("memory://").await.unwrap();
    let (here, there) = (products(&backend), products(&backend));
    let primary = Primary::of(loaf(1)).with_latency(Duration::from_secs(25));
    let first = tokio::spawn(get(&here, primary.loader()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    primary.put(loaf(2));
    there.invalidate("p-001").await.unwrap();
    let late: Vec<_> = (0..100).map(|_| tokio::spawn(lookup(&here, primary.loader()))).collect();
    assert_eq!(first.await.unwrap().unwrap().as_deref(), Some(&loaf(1)));
    for late in late {
        let lookup = late.await.unwrap().unwrap();
        assert_eq!(lookup.value.as_deref(), Some(&loaf(2)));
        assert!(matches!(lookup.outcome, Outcome::Loaded | Outcome::Coalesced), "{:?}", lookup.outcome);
    }
    assert_eq!(primary.loads(), 2);
}

#[tokio::test]
async fn a_load_around_the_cache_does_not_hold_up_gets_that_reach_it() {
    on_every_backend(async |backend| {
        let (cache, primary, gate) = (products(&backend), Primary::of(loaf(1)), Gate::closed());
        cache.get("p-001", primary.loader()).await.unwrap();
        backend.outage(true);
        let unlucky = tokio::spawn(lookup(&cache, primary.gated(&gate)));
        gate.arrival().await;
        backend.outage(false);
        let hit = tokio::time::timeout(Duration::from_secs(5), lookup(&cache, primary.loader())).await;
        assert_eq!(hit.unwrap().unwrap().outcome, Outcome::Hit);
        gate.open();
        assert_eq!(unlucky.await.unwrap().unwrap().outcome, Outcome::Bypassed);
    })
    .await;
}
