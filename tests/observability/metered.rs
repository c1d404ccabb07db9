//! The metrics that a recorder receives during the events that they count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cache_aside::{Backend, BoxError, Cache, Cacheable, Error, NearCache, Outcome};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use testkit::server::{Flavor, Server};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const LEASE: Duration = Duration::from_secs(3);

#[derive(Debug, Cacheable)]
#[cacheable(namespace = "billing", ttl = "30s", not_found_ttl = "5s")]
struct Product {
    #[cacheable(id)]
    id: String,
    stock: u32,
}

/// The settings of a near cache.
#[derive(Debug, Cacheable)]
#[cacheable(namespace = "billing")]
struct Offer {
    #[cacheable(id)]
    id: u64,
}

/// For records that can't be stored.
#[derive(Debug, Cacheable)]
#[cacheable(namespace = "billing")]
struct Note {
    #[cacheable(id)]
    id: String,
    #[cacheable(json)]
    weight: f64,
}

/// The recorded values, over all namespaces and backends: counts, gauges, and the number of values in each histogram.
pub(crate) type Recorded = BTreeMap<String, f64>;

fn product(id: String) -> Product {
    Product { id, stock: 42 }
}

async fn found(id: String) -> Result<Option<Product>, BoxError> {
    Ok((id != "none").then(|| product(id)))
}

/// Starts a get. Its load holds the lease, and ends when it is told to.
async fn load_held(
    cache: &Cache<Product>,
    id: &'static str,
) -> (oneshot::Sender<()>, JoinHandle<Result<Option<Arc<Product>>, Error>>) {
    let ((began, begins), (end, ends)) = (oneshot::channel(), oneshot::channel());
    let get = tokio::spawn(cache.get(id, |id| async move {
        began.send(()).unwrap();
        ends.await?;
        found(id).await
    }));
    begins.await.unwrap();
    (end, get)
}

/// Makes every event happen at least once. The gauges show it while the returned value lives.
async fn live() -> impl Sized {
    let mut server = Server::start(Flavor::Redis70).await;
    let limit = Duration::from_secs(5);
    let connect = || Backend::builder(&server.url()).breaker_threshold(2).operation_timeout(limit).connect();
    let (here, there) = (connect().await.unwrap(), connect().await.unwrap());
    let kept = (here.clone(), there.clone());
    let cache: Cache<Product> = Cache::builder(here.clone()).lock_ttl(LEASE).build().unwrap();
    let other: Cache<Product> = Cache::new(there);
    for id in ["p-1", "p-1", "none", "none"] {
        cache.get(id, found).await.unwrap();
    }
    let (end, loaded) = load_held(&cache, "p-2").await;
    let attempts = async || server.calls().await["set"];
    let before = attempts().await;
    let (coalesced, waited) = (tokio::spawn(cache.get("p-2", found)), tokio::spawn(other.get("p-2", found)));
    while attempts().await == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    end.send(()).unwrap();
    for get in [loaded, coalesced, waited] {
        get.await.unwrap().unwrap();
    }
    // An invalidation comes during a load, whose lease is then lost, and whose fill is fenced.
    let (end, overtaken) = load_held(&cache, "p-3").await;
    other.invalidate("p-3").await.unwrap();
    // The load finds out when it renews the lease.
    tokio::time::sleep(LEASE).await;
    end.send(()).unwrap();
    overtaken.await.unwrap().unwrap();
    // An entry is refreshed ahead, then expires, and is served stale.
    let soon_over = || Cache::<Product>::builder(here.clone()).ttl(Duration::from_secs(3)).jitter(0.0);
    let revalidated = soon_over().stale_while_revalidate(Duration::from_secs(60)).build().unwrap();
    revalidated.get("p-8", found).await.unwrap();
    let around_the_end = soon_over().stale_if_error(Duration::from_secs(60)).refresh_ahead(1e18).build().unwrap();
    for _ in ["loaded", "hit"] {
        around_the_end.get("p-6", found).await.unwrap();
    }
    while around_the_end.stats().loads < 2 || around_the_end.ttl("p-6").await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let failing = |_| async { Err::<Option<Product>, _>("it failed") };
    assert!(around_the_end.get("p-6", failing).await.unwrap().is_some());
    // An expired entry is served while it is loaded anew.
    assert!(matches!(
        revalidated.lookup("p-8", found).await.unwrap().outcome,
        Outcome::Stale { revalidating: true, .. }
    ));
    // Both are loaded by one call.
    let both = cache.get_many(["p-10", "p-11"], |ids| async { Ok::<_, BoxError>(ids.into_iter().map(product)) });
    assert!(both.await.iter().all(Result::is_ok));
    // Gets go around the cache while the server is there: another process' load takes too long, or the cache is switched off.
    let hurried = Cache::<Product>::builder(here).wait_timeout(Duration::from_millis(100)).build().unwrap();
    let (end, holding) = load_held(&other, "p-7").await;
    assert_eq!(hurried.lookup("p-7", found).await.unwrap().outcome, Outcome::Bypassed);
    end.send(()).unwrap();
    holding.await.unwrap().unwrap();
    cache.set_enabled(false);
    cache.get("p-1", found).await.unwrap();
    cache.set_enabled(true);
    // The near cache receives a message about a write elsewhere.
    let server_of_offers = Server::start(Flavor::Redis70).await;
    let url = server_of_offers.url();
    let connect = || Backend::builder(&url).operation_timeout(limit).heartbeat_timeout(limit).connect();
    let (offers, elsewhere) = (connect().await.unwrap(), connect().await.unwrap());
    let offers = Cache::<Offer>::builder(offers).near_cache(NearCache::entries(10)).build().unwrap();
    let offer = |id| async move { Ok::<_, BoxError>(Some(Offer { id })) };
    while offers.lookup(7, offer).await.unwrap().outcome != Outcome::NearHit {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Cache::<Offer>::new(elsewhere).invalidate(7).await.unwrap();
    while offers.lookup(7, offer).await.unwrap().outcome == Outcome::NearHit {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let flushes = offers.stats().near_flushes;
    let _: () = redis::cmd("FLUSHALL").query_async(&mut server_of_offers.client().await).await.unwrap();
    while offers.stats().near_flushes == flushes {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let notes: Cache<Note> = Cache::new(Backend::connect("memory://").await.unwrap());
    let note = |id: &str, weight| Ok::<_, BoxError>(Some(Note { id: id.to_owned(), weight }));
    for (id, loaded) in [("n-1", note("n-1", f64::NAN)), ("", note("", 0.5)), ("n-2", note("N-2", 0.5))] {
        notes.get(id, |_| async { loaded }).await.unwrap();
    }
    cache.get("p-4", |_| async { Err::<Option<Product>, _>("it failed") }).await.unwrap_err();
    assert!(cache.update_field("p-1", Product::FIELDS.stock, 41).await.unwrap());
    assert!(!cache.update_field("p-9", Product::FIELDS.stock, 41).await.unwrap());
    assert!(cache.invalidate("p-1").await.unwrap());
    let mut stranger = server.client().await;
    let _: () = redis::cmd("HSET")
        .arg(&["cache:billing:product:p-5", "stock", "many"])
        .query_async(&mut stranger)
        .await
        .unwrap();
    cache.get("p-5", found).await.unwrap();
    server.kill().await;
    for _ in 0..3 {
        cache.get("p-1", found).await.unwrap();
        cache.invalidate("p-1").await.unwrap_err();
        cache.update_field("p-2", Product::FIELDS.stock, 41).await.unwrap_err();
    }
    cache.get("p-1", |_| async { Err::<Option<Product>, _>("it failed") }).await.unwrap_err();
    (kept, server_of_offers, offers)
}

/// Runs it with its own recorder; returns the values at the end, and those while everything is dropped.
fn recorded_twice() -> [Recorded; 2] {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let lived = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), live()).await });
        let kept = lived.expect("it ends");
        let in_the_end = read(&snapshotter);
        drop((runtime, kept));
        [in_the_end, read(&snapshotter)]
    })
}

pub(crate) fn recorded() -> Recorded {
    let [in_the_end, _] = recorded_twice();
    in_the_end
}

fn read(snapshotter: &Snapshotter) -> Recorded {
    let value = |value| match value {
        DebugValue::Counter(count) => f64::from(u32::try_from(count).unwrap()),
        DebugValue::Gauge(gauge) => gauge.into_inner(),
        DebugValue::Histogram(values) => f64::from(u32::try_from(values.len()).unwrap()),
    };
    let mut sums = Recorded::new();
    for (key, _unit, description, recorded) in snapshotter.snapshot().into_vec() {
        assert!(description.is_some(), "{key:?} is not described");
        let labels = key.key().labels().filter(|label| !["namespace", "backend"].contains(&label.key()));
        let labels: Vec<_> = labels.map(|label| format!("{}={}", label.key(), label.value())).collect();
        let series = format!("{}{{{}}}", key.key().name(), labels.join(","));
        *sums.entry(series).or_default() += value(recorded);
    }
    sums
}

pub(crate) fn names(recorded: &Recorded) -> BTreeSet<String> {
    recorded.keys().map(|series| series.split('{').next().unwrap().to_owned()).collect()
}

#[test]
fn everything_that_happens_is_counted() {
    let [recorded, dropped] = recorded_twice();
    println!("{recorded:#?}");
    let get = |outcome| format!("cache_aside_operations_total{{entity=product,operation=get,outcome={outcome}}}");
    for (outcome, count) in [
        ("hit", 2.0),
        ("not_found_hit", 1.0),
        ("loaded", 10.0),
        ("coalesced", 1.0),
        ("waited", 1.0),
        ("bypassed", 5.0),
        ("stale", 1.0),
        ("stale_revalidating", 1.0),
        ("error", 2.0),
    ] {
        assert_eq!(recorded[&get(outcome)], count, "{outcome}");
        let seconds = format!("cache_aside_get_seconds{{entity=product,outcome={outcome}}}");
        assert_eq!(recorded[&seconds], count, "{outcome}");
    }
    let write = |operation, outcome| {
        recorded[&format!("cache_aside_operations_total{{entity=product,operation={operation},outcome={outcome}}}")]
    };
    assert_eq!((write("update", "applied"), write("update", "nothing")), (1.0, 1.0));
    assert_eq!((write("invalidate", "applied"), write("invalidate", "nothing")), (1.0, 1.0));
    assert!(write("update", "failed") >= 1.0 && write("invalidate", "failed") >= 3.0);
    let of_product = |name: &str| recorded[&format!("cache_aside_{name}{{entity=product}}")];
    assert_eq!(of_product("fenced_fills_total"), 1.0);
    assert_eq!(of_product("leases_lost_total"), 1.0);
    assert_eq!(of_product("decode_errors_total"), 1.0);
    let bypasses = |entity, reason| recorded[&format!("cache_aside_bypasses_total{{entity={entity},reason={reason}}}")];
    for (reason, count) in [("outage", 1.0), ("pending", 2.0), ("slow_load", 1.0), ("disabled", 1.0)] {
        assert_eq!(bypasses("product", reason), count, "{reason}");
    }
    assert_eq!(bypasses("note", "invalid_id"), 1.0);
    for reason in ["load_failed", "revalidating"] {
        let stale = format!("cache_aside_stale_served_total{{entity=product,reason={reason}}}");
        assert_eq!(recorded[&stale], 1.0, "{reason}");
    }
    assert_eq!(of_product("load_records"), 1.0, "one call for two records");
    assert_eq!(of_product("lock_wait_seconds"), 2.0);
    assert_eq!(of_product("refreshes_ahead_total"), 1.0);
    assert_eq!(recorded["cache_aside_load_seconds{entity=product,result=error}"], 3.0);
    assert_eq!(recorded["cache_aside_breaker_open{}"], 1.0);
    assert_eq!(of_product("pending_invalidations"), 2.0);
    assert!(recorded["cache_aside_step_failures_total{kind=unanswered}"] >= 2.0);
    assert!(recorded["cache_aside_operations_total{entity=offer,operation=get,outcome=near_hit}"] >= 1.0);
    assert!(recorded["cache_aside_near_invalidations_total{entity=offer}"] >= 1.0);
    assert!(recorded["cache_aside_near_flushes_total{entity=offer}"] >= 1.0);
    for name in ["encode_errors_total", "invalid_ids_total", "other_ids_total"] {
        assert_eq!(recorded[&format!("cache_aside_{name}{{entity=note}}")], 1.0, "{name}");
    }
    assert_eq!(recorded["cache_aside_tracker_live{}"], 1.0);
    assert!(recorded.contains_key("cache_aside_update_connections{state=in_use}"));
    for gauge in
        ["tracker_live{}", "breaker_open{}", "pending_invalidations{entity=product}", "update_connections{state=idle}"]
    {
        // Each snapshot resets gauges to zero.
        let gauge = format!("cache_aside_{gauge}");
        assert_eq!(recorded[&gauge] + dropped[&gauge], 0.0, "{gauge} without any backend");
    }
    assert!(recorded.keys().all(|series| !series.contains("p-")), "no id in a label");
}

/// The servers of a cluster come and go; a label for each address would be there for good.
#[test]
fn the_breakers_of_a_cluster_have_one_gauge() {
    const CLUSTER: &str = "redis+cluster://127.0.0.1:1,127.0.0.1:2";
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Backend::connect(CLUSTER)).unwrap_err();
    });
    let gauges = snapshotter.snapshot().into_vec().into_iter().map(|(key, ..)| key.key().clone());
    let gauges: Vec<_> = gauges.filter(|key| key.name() == "cache_aside_breaker_open").collect();
    let labels: Vec<_> = gauges.iter().flat_map(|key| key.labels()).map(|label| label.value()).collect();
    assert_eq!(labels, [CLUSTER]);
}
