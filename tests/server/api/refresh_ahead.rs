//! Refresh ahead: a hit reloads a record before it expires, and no reader waits for that.

use std::time::Duration;

use cache_aside::proof::{Phase, Step};
use cache_aside::{Backend, Cache, CacheBuilder, EntryState, Outcome};

use crate::support::fixture::{
    Gate, Primary, Product, builder, connect, get, loaf, lookup, on_every_backend, on_every_server, products, settle,
    until,
};
use crate::support::process::Process;

/// With this beta every hit is due, except one in a million million.
const ALWAYS: f64 = 1e18;

/// With this beta no hit is due.
const NEVER: f64 = 1e-18;

const LIMIT: Duration = Duration::from_secs(20);

fn eager(backend: &Backend) -> Cache<Product> {
    eagerly(builder(backend)).build().unwrap()
}

fn eagerly(cache: CacheBuilder<Product>) -> CacheBuilder<Product> {
    cache.jitter(0.0).refresh_ahead(ALWAYS).stale_retry(Duration::from_secs(600))
}

/// Waits until the cache has this record.
async fn until_stored(cache: &Cache<Product>, product: &Product) {
    let is_stored = async || cache.peek("p-001").await.unwrap().as_deref() == Some(product);
    until(Duration::from_secs(10), "it is not refreshed", is_stored).await;
}

async fn one_refreshes_and_nobody_waits(here: &Cache<Product>, there: &Cache<Product>) {
    let (primary, gate) = (Primary::of(loaf(1)), Gate::closed());
    assert_eq!(lookup(here, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
    primary.put(loaf(2));
    for _ in 0..20 {
        for cache in [here, there] {
            let hit = lookup(cache, primary.gated(&gate)).await.unwrap();
            assert_eq!((hit.outcome, hit.value.as_deref()), (Outcome::Hit, Some(&loaf(1))));
            assert_eq!(cache.peek("p-001").await.unwrap().as_deref(), Some(&loaf(1)));
        }
    }
    gate.arrival().await;
    settle().await;
    assert_eq!(primary.loads(), 2, "one refresh by all hits of both");
    gate.open();
    until_stored(there, &loaf(2)).await;
    let stats = [here.stats(), there.stats()];
    assert_eq!(stats.map(|stats| stats.refreshes_ahead).iter().sum::<u64>(), 1);
    assert_eq!(stats.map(|stats| stats.loads).iter().sum::<u64>(), 2);
    assert_eq!(stats.map(|stats| stats.hits), [20, 20]);
    assert_eq!(here.inspect("p-001").await.unwrap().lock_ttl, None);
}

#[tokio::test]
async fn one_hit_of_all_processes_refreshes_and_no_reader_waits() {
    on_every_backend(async |backend| one_refreshes_and_nobody_waits(&eager(&backend), &eager(&backend)).await).await;
    on_every_server(async |server, backend| {
        let another = connect(&server.url()).await;
        one_refreshes_and_nobody_waits(&eager(&backend), &eager(&another)).await;
    })
    .await;
}

#[tokio::test]
async fn a_refresh_renews_the_ttl_and_can_be_followed_by_another() {
    on_every_backend(async |backend| {
        let (cache, primary) = (eager(&backend), Primary::of(loaf(1)));
        get(&cache, primary.loader()).await.unwrap();
        for stock in [2, 3] {
            settle().await;
            let before = cache.ttl("p-001").await.unwrap();
            let refreshes = cache.stats().refreshes_ahead;
            primary.put(loaf(stock));
            // The task of the refresh before may not have ended yet.
            let refreshes_again = async || {
                get(&cache, primary.loader()).await.unwrap();
                cache.stats().refreshes_ahead > refreshes
            };
            until(LIMIT, "no hit starts a refresh", refreshes_again).await;
            until_stored(&cache, &loaf(stock)).await;
            assert!(cache.ttl("p-001").await.unwrap() > before);
        }
    })
    .await;
}

#[tokio::test]
async fn an_invalidation_fences_a_refresh() {
    on_every_backend(async |backend| {
        let (here, there) = (eager(&backend), products(&backend));
        let (primary, gate) = (Primary::of(loaf(1)), Gate::closed());
        get(&here, primary.loader()).await.unwrap();
        get(&here, primary.gated(&gate)).await.unwrap();
        gate.arrival().await;
        primary.put(loaf(2));
        assert!(there.invalidate("p-001").await.unwrap());
        gate.open();
        while here.stats().fenced_fills == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(here.inspect("p-001").await.unwrap().state, EntryState::Missing);
        assert_eq!(get(&here, primary.loader()).await.unwrap().as_deref(), Some(&loaf(2)));
    })
    .await;
}

#[tokio::test]
async fn a_refresh_that_fails_leaves_the_record_and_is_not_tried_again_at_once() {
    on_every_backend(async |backend| {
        let (cache, primary) = (eager(&backend), Primary::of(loaf(1)));
        get(&cache, primary.loader()).await.unwrap();
        primary.down(true);
        for _ in 0..5 {
            assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Hit);
            settle().await;
        }
        until(LIMIT, "the load does not fail", async || cache.stats().load_errors == 1).await;
        assert_eq!((primary.loads(), cache.stats().hits), (2, 5));
        assert_eq!(cache.inspect("p-001").await.unwrap().lock_ttl, None, "another process may try");

        let brief = eagerly(builder(&backend)).stale_retry(Duration::from_millis(20)).build().unwrap();
        let is_tried_again = async || {
            assert_eq!(lookup(&brief, primary.loader()).await.unwrap().outcome, Outcome::Hit);
            primary.loads() == 4
        };
        until(LIMIT, "it is not tried again", is_tried_again).await;
    })
    .await;
}

#[tokio::test]
async fn a_record_that_another_process_has_refreshed_in_the_meantime_is_left_alone() {
    on_every_backend(async |backend| {
        let (here, there) = (Process::of(&backend, None, eagerly), products(&backend));
        let primary = Primary::of(loaf(1));
        get(&here.cache, primary.loader()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let (before, after) = (here.hold(Step::Acquire, Phase::Before), here.hold(Step::Abandon, Phase::After));
        get(&here.cache, primary.loader()).await.unwrap();
        before.arrival().await;
        let longer = eagerly(builder(&backend)).ttl(Duration::from_secs(60)).build().unwrap();
        longer.refresh("p-001", primary.loader()).await.unwrap();
        before.open();
        after.arrival().await;
        after.open();
        assert_eq!((primary.loads(), here.cache.stats().refreshes_ahead), (2, 0));
        assert_eq!(there.inspect("p-001").await.unwrap().lock_ttl, None);

        // Nor is it brought back after an invalidation.
        settle().await;
        let (before, after) = (here.hold(Step::Acquire, Phase::Before), here.hold(Step::Abandon, Phase::After));
        get(&here.cache, primary.loader()).await.unwrap();
        before.arrival().await;
        there.invalidate("p-001").await.unwrap();
        before.open();
        after.arrival().await;
        after.open();
        assert_eq!((primary.loads(), here.cache.stats().refreshes_ahead), (2, 0));
        assert_eq!(there.inspect("p-001").await.unwrap().state, EntryState::Missing);
    })
    .await;
}

#[tokio::test]
async fn a_refresh_that_finds_no_record_replaces_or_removes_it() {
    on_every_backend(async |backend| {
        for (not_found_ttl, left) in
            [(Some(Duration::from_secs(10)), EntryState::NotFound), (None, EntryState::Missing)]
        {
            let cache = eagerly(builder(&backend)).not_found_ttl(not_found_ttl).build().unwrap();
            let primary = Primary::of(loaf(1));
            get(&cache, primary.loader()).await.unwrap();
            primary.remove("p-001");
            get(&cache, primary.loader()).await.unwrap();
            while cache.inspect("p-001").await.unwrap().state == EntryState::Record {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(cache.inspect("p-001").await.unwrap().state, left);
            cache.invalidate("p-001").await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_record_that_is_not_due_or_a_cache_without_the_setting_is_not_refreshed_ahead() {
    on_every_backend(async |backend| {
        let (eager, primary) = (eager(&backend), Primary::of(loaf(1)));
        let lazy = builder(&backend).refresh_ahead(NEVER).build().unwrap();
        let plain = products(&backend);
        eager.get("p-001", primary.loader()).await.unwrap();
        let noted = eager.inspect("p-001").await.unwrap();
        assert!(noted.fields.iter().any(|(name, note)| name == "~meta" && note.starts_with(b"load=")), "{noted}");
        assert_eq!(noted.stale_ttl, None);
        for cache in [&lazy, &plain] {
            assert_eq!(lookup(cache, primary.loader()).await.unwrap().outcome, Outcome::Hit);
        }
        // An entry without `load` can't be due.
        plain.refresh("p-001", primary.loader()).await.unwrap();
        assert_eq!(lookup(&eager, primary.loader()).await.unwrap().outcome, Outcome::Hit);
        settle().await;
        assert_eq!((primary.loads(), eager.stats().refreshes_ahead), (2, 0));
    })
    .await;
}

/// With both settings, a refresh that fails serves nothing stale: there is a live record.
#[tokio::test]
async fn stale_if_error_and_refresh_ahead_go_together() {
    on_every_backend(async |backend| {
        let tail = Duration::from_secs(60);
        let cache = eagerly(builder(&backend)).ttl(Duration::from_secs(30)).stale_if_error(tail).build().unwrap();
        let primary = Primary::of(loaf(1));
        get(&cache, primary.loader()).await.unwrap();
        let stored = cache.inspect("p-001").await.unwrap();
        assert!(stored.ttl.unwrap() <= Duration::from_secs(30), "{stored}");
        assert_eq!(stored.stale_ttl, Some(tail));
        let meta = stored.fields.iter().find(|(name, _)| name == "~meta").unwrap();
        assert!(meta.1.starts_with(b"stale=60000 load="), "{stored}");
        primary.put(loaf(2));
        get(&cache, primary.loader()).await.unwrap();
        until_stored(&cache, &loaf(2)).await;
        assert_eq!(cache.stats().stale_served, 0);
    })
    .await;
}
