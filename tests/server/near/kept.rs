//! The records that the near cache keeps and returns, for how long, and its cost for the server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cache_aside::{BoxError, Cache, Cacheable, NearCache, Outcome, TrackerState, Untracked};
use testkit::fake::{Answer, Fake};
use testkit::server::{Flavor, Server};
use tokio::time::sleep;

use super::{LIMIT, LONG, Order, bounded, live, loaded, near, outcome, sees, stock, warm, write_elsewhere};
use crate::support::fixture::{
    Primary, Product, builder, connect, get, load_at_gate, loaf, lookup, on_every_server, products, until,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_near_hit_is_answered_from_memory() {
    on_every_server(async |server, backend| {
        let (cache, primary) = (near(&backend), Primary::of(loaf(42)));
        loaded(&cache, &primary).await;
        warm(&cache, &primary).await;
        let (calls, kept) = (server.calls().await, get(&cache, primary.loader()).await.unwrap().unwrap());
        cache.reset_stats();
        for _ in 0..100 {
            let found = lookup(&cache, primary.loader()).await.unwrap();
            assert_eq!((found.outcome, found.cache_latency), (Outcome::NearHit, Duration::ZERO));
            assert!(Arc::ptr_eq(&found.value.unwrap(), &kept), "it is the same record");
        }
        let fields = (Product::FIELDS.stock, Product::FIELDS.name);
        let found = cache.get_fields("p-001", fields, primary.loader()).await.unwrap();
        assert_eq!(found, Some((42, "Sourdough Loaf".to_owned())));
        let load_many = |_: Vec<String>| async { Ok::<_, BoxError>(Vec::new()) };
        let many = cache.lookup_many(["p-001", "p-001"], load_many).await;
        assert!(many.iter().all(|found| found.as_ref().unwrap().outcome == Outcome::NearHit));
        let mut after = server.calls().await;
        for heartbeat in ["pttl", "client|list"] {
            after.insert(heartbeat.to_owned(), calls.get(heartbeat).copied().unwrap_or_default());
        }
        assert!(calls.iter().all(|(command, calls)| after[command] == *calls), "{calls:?} {after:?}");
        let stats = cache.stats();
        assert_eq!((stats.near_hits, stats.hits, stats.misses, stats.bypasses), (102, 102, 0, 0));
        assert_eq!((stats.hit_rate_pct(), stats.tracker), (100.0, TrackerState::Live));

        let fresh = cache.get_fresh("p-001", primary.loader()).await.unwrap().unwrap();
        assert!(fresh == kept && !Arc::ptr_eq(&fresh, &kept), "it went to Redis");
        assert_eq!(cache.stats().near_hits, 102);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_record_is_kept_until_there_is_one() {
    on_every_server(async |_, backend| {
        let (cache, primary) = (near(&backend), Primary::default());
        loaded(&cache, &primary).await;
        warm(&cache, &primary).await;
        cache.reset_stats();
        let found = lookup(&cache, primary.loader()).await.unwrap();
        assert_eq!((found.outcome, found.value), (Outcome::NearHit, None));
        assert_eq!((cache.stats().near_hits, cache.stats().not_found_hits), (1, 1));
        primary.put(loaf(1));
        cache.invalidate("p-001").await.unwrap();
        assert_eq!(stock(&cache, &primary).await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_backend_has_no_near_cache() {
    let (cache, primary) = (near(&connect("memory://").await), Primary::of(loaf(1)));
    assert_eq!(outcome(&cache, &primary).await, Outcome::Loaded);
    for _ in 0..3 {
        assert_eq!(outcome(&cache, &primary).await, Outcome::Hit);
    }
    assert_eq!(cache.get_fresh("p-001", primary.loader()).await.unwrap().unwrap().stock, 1);
    assert_eq!(cache.stats().tracker, TrackerState::Unused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_of_other_processes_are_seen() {
    on_every_server(async |server, elsewhere| {
        let (cache, primary) = (near(&bounded(&server.url()).await), Primary::of(loaf(0)));
        let elsewhere = products(&elsewhere);
        for version in 1..=20 {
            warm(&cache, &primary).await;
            write_elsewhere(&elsewhere, &primary, version).await;
            sees(&cache, &primary, version, "a write elsewhere").await;
        }
        warm(&cache, &primary).await;
        assert!(elsewhere.update_field("p-001", Product::FIELDS.stock, 41).await.unwrap());
        sees(&cache, &primary, 41, "an update elsewhere").await;
        assert!(cache.stats().near_invalidations >= 21, "{:?}", cache.stats());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_kept_for_longer_than_its_max_age_or_its_ttl() {
    const SHORT: Duration = Duration::from_millis(400);
    let server = Server::start(Flavor::Redis70).await;
    let (backend, primary) = (connect(&server.url()).await, Primary::of(loaf(1)));
    for (ttl, max_age, after) in [(LONG, SHORT, Outcome::Hit), (SHORT, LONG, Outcome::Loaded)] {
        let settings = NearCache::entries(10).max_age(max_age);
        let cache = builder(&backend).ttl(ttl).not_found_ttl(None).jitter(0.0).near_cache(settings).build().unwrap();
        cache.invalidate("p-001").await.unwrap();
        warm(&cache, &primary).await;
        sleep(SHORT).await;
        assert_eq!(outcome(&cache, &primary).await, after);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_and_max_bytes_bound_the_near_cache() {
    const RECORDS: usize = 500;
    let server = Server::start(Flavor::Redis70).await;
    let backend = connect(&server.url()).await;
    let load = |id: String| async move { Ok::<_, BoxError>(Some(Product { id, name: "x".repeat(1_000), ..loaf(1) })) };
    let (by_number, by_bytes) = (NearCache::entries(20), NearCache::entries(RECORDS).max_bytes(100_000));
    for (settings, most) in [(NearCache::entries(1), 1), (by_number, 20), (by_bytes, 95)] {
        let cache = builder(&backend).ttl(LONG).near_cache(settings.max_age(LONG)).build().unwrap();
        live(&cache).await;
        let get_all = async || {
            let mut kept = 0;
            for number in 0..RECORDS {
                let found = cache.lookup(number.to_string(), load).await.unwrap();
                kept += usize::from(found.outcome == Outcome::NearHit);
            }
            kept
        };
        for _ in 0..3 {
            let kept = get_all().await;
            println!("{kept} of {RECORDS} kept");
            assert!(kept <= most, "{kept} are kept");
        }
        until(LIMIT, "nothing is kept", async || {
            cache.get("0", load).await.unwrap();
            cache.lookup("0", load).await.unwrap().outcome == Outcome::NearHit
        })
        .await;
    }
    let settings = NearCache::entries(RECORDS * 4).max_age(LONG);
    let cache = builder(&backend).ttl(LONG).near_cache(settings).build().unwrap();
    until(LIMIT, "not all are kept", async || {
        let before = cache.stats().near_hits;
        for number in 0..RECORDS {
            cache.get(number.to_string(), load).await.unwrap();
        }
        cache.stats().near_hits - before == RECORDS as u64
    })
    .await;
}

/// As large as a stored record may be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_record_is_kept_too() {
    let server = Server::start(Flavor::Redis70).await;
    let primary = Primary::of(Product { name: "x".repeat(1_000_000), ..loaf(1) });
    warm(&near(&connect(&server.url()).await), &primary).await;
}

async fn refuses_to_track(url: &str, access: impl AsyncFn(&Server)) {
    let server = Server::start(Flavor::Redis70).await;
    access(&server).await;
    let url = url.replace("PORT", &server.port().to_string());
    tracks_nothing(&server, &url).await;
}

/// Writes come over the server itself, and all else over the URL.
async fn tracks_nothing(server: &Server, url: &str) {
    let (backend, primary) = (connect(url).await, Primary::of(loaf(1)));
    for (untracked, kept) in [(Untracked::Off, false), (Untracked::MaxAge, true)] {
        let settings = NearCache::entries(10).max_age(Duration::from_secs(3)).untracked(untracked);
        let cache = builder(&backend).near_cache(settings).build().unwrap();
        until(LIMIT, "it is not noticed", async || cache.stats().tracker == TrackerState::Unsupported).await;
        primary.put(loaf(1));
        cache.refresh("p-001", primary.loader()).await.unwrap();
        assert_eq!(outcome(&cache, &primary).await, Outcome::Hit);
        assert_eq!(outcome(&cache, &primary).await == Outcome::NearHit, kept, "{untracked:?}");
        primary.put(loaf(2));
        cache.invalidate("p-001").await.unwrap();
        assert_eq!(stock(&cache, &primary).await, 2, "its own writes");
        write_elsewhere(&products(&connect(&server.url()).await), &primary, 3).await;
        until(LIMIT, "the old record is kept", async || stock(&cache, &primary).await == 3).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_tracking_nothing_is_kept_or_only_for_max_age() {
    refuses_to_track("redis://127.0.0.1:PORT?protocol=resp2", async |_| {}).await;
    refuses_to_track("redis://near:secret@127.0.0.1:PORT", async |server| {
        let rules = ["SETUSER", "near", "on", ">secret", "~*", "&*", "+@all", "-client|tracking"];
        redis::cmd("ACL").arg(&rules).exec_async(&mut server.client().await).await.unwrap();
    })
    .await;
}

/// Only a tracker sends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_hello_in_any_words_is_used_without_tracking() {
    for flavor in Flavor::ALL {
        let server = Server::start_with(flavor, &["--rename-command", "HELLO", ""]).await;
        tracks_nothing(&server, &server.url()).await;
    }
    let server = Server::start(Flavor::Redis70).await;
    for words in [
        "-ERR unknown command 'HELLO', with args beginning with: '3' \r\n",
        "-NOPROTO unsupported protocol version\r\n",
        "-invalid request\r\n",
        "-HELLO\r\n",
        "-no\r\n",
    ] {
        println!("{words}");
        let rule = move |command: &str| if command == "HELLO" { Answer::Fake(words) } else { Answer::Server };
        let fake = Fake::before(server.port(), rule).await;
        tracks_nothing(&server, &fake.url()).await;
        redis::cmd("FLUSHALL").exec_async(&mut server.client().await).await.unwrap();
    }
}

#[derive(Debug, Cacheable)]
#[cacheable(entity = "billing")]
struct Longer {
    #[cacheable(id)]
    id: u64,
}

/// Their prefixes are `cache:billing:product:`, `cache:billing:order:` and `cache:billing:`, which overlap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_near_caches_of_a_backend_share_one_connection() {
    on_every_server(async |server, backend| {
        let before = server.connections().await;
        let settings = NearCache::entries(10);
        let (cache, primary) = (near(&backend), Primary::of(loaf(1)));
        let again = near(&backend);
        warm(&cache, &primary).await;
        let orders: Cache<Order> = Cache::builder(backend.clone()).near_cache(settings).build().unwrap();
        let longer: Cache<Longer> = Cache::builder(backend.clone()).near_cache(settings).build().unwrap();
        let (load_order, load_longer) = (
            |id: u64| async move { Ok::<_, BoxError>(Some(Order { id })) },
            |id: u64| async move { Ok::<_, BoxError>(Some(Longer { id })) },
        );
        until(LIMIT, "nothing is kept", async || {
            let order = orders.lookup(1, load_order).await.unwrap().outcome;
            let longer = longer.lookup(1, load_longer).await.unwrap().outcome;
            (order, longer) == (Outcome::NearHit, Outcome::NearHit)
        })
        .await;
        warm(&cache, &primary).await;
        warm(&again, &primary).await;
        // Reads use one connection, and the load may have used another.
        assert!(server.connections().await <= before + 2, "{before}");
        write_elsewhere(&cache, &primary, 2).await;
        assert_eq!((stock(&cache, &primary).await, stock(&again, &primary).await), (2, 2));
        warm(&cache, &primary).await;
        let elsewhere: Cache<Order> = Cache::new(connect(&server.url()).await);
        elsewhere.invalidate(1).await.unwrap();
        until(LIMIT, "the old record is kept", async || {
            orders.lookup(1, load_order).await.unwrap().outcome == Outcome::Loaded
        })
        .await;
        assert_eq!(outcome(&cache, &primary).await, Outcome::NearHit, "a write of another struct's record dropped it");
        assert_eq!(longer.lookup(1, load_longer).await.unwrap().outcome, Outcome::NearHit);
        drop((elsewhere, cache, again, orders, longer, backend));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trackers_connection_ends_with_its_backend() {
    let server = Server::start(Flavor::Redis70).await;
    let backend = connect(&server.url()).await;
    let cache = near(&backend);
    warm(&cache, &Primary::of(loaf(1))).await;
    drop((cache, backend));
    until(LIMIT, "connections stay", async || server.connections().await == 0).await;
}

/// Without a message it would wait for its next poll, which is far off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_get_that_waits_for_another_process_is_woken_by_its_fill() {
    on_every_server(async |server, backend| {
        let primary = Primary::of(loaf(1));
        let settings = NearCache::entries(10);
        let waiting = builder(&backend).wait_poll(LONG).wait_timeout(LONG).near_cache(settings).build().unwrap();
        live(&waiting).await;
        let loading = builder(&connect(&server.url()).await).lock_ttl(LONG).build().unwrap();
        let (gate, load) = load_at_gate(&loading, &primary).await;
        // Only a process that was refused the lease sends `GET`.
        let looks = async || server.calls().await.get("get").copied().unwrap_or_default();
        let before = looks().await;
        let wait = tokio::spawn(lookup(&waiting, primary.loader()));
        until(LIMIT, "it doesn't wait", async || looks().await > before).await;
        gate.open();
        load.await.unwrap().unwrap();
        let loaded = Instant::now();
        let waited = wait.await.unwrap().unwrap();
        println!("woken {:?} after the fill", loaded.elapsed());
        assert_eq!((waited.outcome, waited.value.unwrap().stock), (Outcome::Waited, 1));
        assert!(loaded.elapsed() < LIMIT, "{:?}", loaded.elapsed());
    })
    .await;
}
