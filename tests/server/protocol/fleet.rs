//! Loads over many processes: what can't be stored doesn't queue, and one process makes at most two loads of a key at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cache_aside::{Backend, BoxError, Cache, CacheBuilder, Outcome};
use futures_util::future::join_all;

use crate::support::fixture::{
    Found, Primary, Product, builder, get, load_at_gate, loaf, lookup, on_every_backend, settle,
};

const PROCESSES: usize = 6;
const LOAD: Duration = Duration::from_secs(3);
/// A mark lives for twice as long, so that a busy machine comes to look before it expires.
const POLL: Duration = Duration::from_secs(1);
/// Two loads one after the other, and room for a busy machine. Six would take twice as long.
const LONGEST: Duration = Duration::from_millis(8_900);

/// Caches with flights of their own, as in as many processes.
fn processes(
    backend: &Backend,
    namespace: &str,
    set: impl Fn(CacheBuilder<Product>) -> CacheBuilder<Product>,
) -> Vec<Cache<Product>> {
    (0..PROCESSES).map(|_| set(builder(backend).namespace(namespace).wait_poll(POLL)).build().unwrap()).collect()
}

fn failing() -> impl Fn(String) -> Found + Clone + Send + Sync + 'static {
    |_| {
        Box::pin(async {
            tokio::time::sleep(LOAD).await;
            Err::<Option<Product>, BoxError>("on purpose".into())
        })
    }
}

/// Gets the record in all processes at once.
async fn all_are_answered_within_two_loads(
    caches: Vec<Cache<Product>>,
    loader: impl Fn(String) -> Found + Clone + Send + Sync + 'static,
) {
    let began = Instant::now();
    let gets = caches.iter().map(|cache| lookup(cache, loader.clone()));
    let outcomes: Vec<_> =
        join_all(gets).await.into_iter().map(|found| found.ok().map(|found| found.outcome)).collect();
    let took = began.elapsed();
    let loads: Vec<_> = caches.iter().map(|cache| cache.stats().loads).collect();
    assert!(took < LONGEST, "{took:?}, {loads:?} loads, {outcomes:?}");
    assert!(loads.iter().all(|loads| *loads <= 1), "{loads:?}");
    assert!(!outcomes.contains(&Some(Outcome::Bypassed)), "{outcomes:?}");
}

#[tokio::test]
async fn loads_that_leave_nothing_to_store_do_not_queue() {
    on_every_backend(async |backend| {
        let primary = Primary::of(loaf(1)).with_latency(LOAD);
        let missing = Primary::default().with_latency(LOAD);
        let fail = processes(&backend, "failing", |cache| cache);
        let not_found = processes(&backend, "missing", |cache| cache.not_found_ttl(None));
        let no_ttl = processes(&backend, "no-ttl", |cache| cache.ttl_by(|_| Duration::ZERO));
        let large = processes(&backend, "large", |cache| cache.max_entry_bytes(8));
        tokio::join!(
            all_are_answered_within_two_loads(fail, failing()),
            all_are_answered_within_two_loads(not_found, missing.loader()),
            all_are_answered_within_two_loads(no_ttl, primary.loader()),
            all_are_answered_within_two_loads(large, primary.loader()),
        );
    })
    .await;
}

#[tokio::test]
async fn callers_that_come_while_such_loads_are_under_way_do_not_queue_either() {
    const CALLERS: u32 = 10;
    on_every_backend(async |backend| {
        let missing = Primary::default().with_latency(LOAD);
        let caches = processes(&backend, "missing", |cache| cache.not_found_ttl(None));
        let calls = caches.iter().flat_map(|cache| (0..CALLERS).map(move |caller| (cache, caller)));
        let calls = calls.map(|(cache, caller)| {
            let (cache, load) = (cache.clone(), missing.loader());
            tokio::spawn(async move {
                tokio::time::sleep(LOAD * caller / CALLERS).await;
                let began = Instant::now();
                cache.get("p-001", load).await.unwrap();
                began.elapsed()
            })
        });
        let longest = join_all(calls).await.into_iter().map(Result::unwrap).max().unwrap();
        assert!(longest < LONGEST, "{longest:?}");
    })
    .await;
}

#[tokio::test]
async fn a_load_over_the_mark_of_one_that_failed_is_stored_and_shared() {
    on_every_backend(async |backend| {
        let caches = processes(&backend, "shop", |cache| cache);
        let down = |_| Box::pin(async { Err("on purpose".into()) }) as Found;
        assert!(get(&caches[0], down).await.is_err());
        let primary = Primary::of(loaf(1));
        let (gate, first) = load_at_gate(&caches[1], &primary).await;
        // It has not waited for the load that failed, so it waits for this one.
        let second = tokio::spawn(lookup(&caches[2], primary.loader()));
        settle().await;
        gate.open();
        assert_eq!(first.await.unwrap().unwrap().as_deref(), Some(&loaf(1)));
        let second = second.await.unwrap().unwrap();
        assert!(matches!(second.outcome, Outcome::Waited | Outcome::Hit), "{:?}", second.outcome);
        assert_eq!(primary.loads(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_wait_is_not_shorter_than_a_load() {
    on_every_backend(async |backend| {
        let caches = processes(&backend, "shop", |cache| cache.load_timeout(LOAD * 10).lock_ttl(LOAD));
        let primary = Primary::of(loaf(1)).with_latency(LOAD + Duration::from_secs(1));
        for found in join_all(caches.iter().map(|cache| lookup(cache, primary.loader()))).await {
            assert_ne!(found.unwrap().outcome, Outcome::Bypassed);
        }
        assert_eq!(primary.loads(), 1);
    })
    .await;
}

#[tokio::test]
async fn at_most_two_loads_of_a_key_are_under_way_in_a_process() {
    const ROUNDS: u32 = 60;
    on_every_backend(async |backend| {
        let cache = builder(&backend).build().unwrap();
        let (under_way, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let primary = Primary::of(loaf(0));
        let load = {
            let (under_way, most, primary) = (under_way.clone(), most.clone(), primary.clone());
            move |id: String| {
                let (under_way, most, row) = (under_way.clone(), most.clone(), primary.loader()(id));
                Box::pin(async move {
                    most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let row = row.await;
                    tokio::time::sleep(LOAD / 4).await;
                    under_way.fetch_sub(1, Ordering::SeqCst);
                    row
                }) as Found
            }
        };
        let mut gets = Vec::new();
        for stock in 1..=ROUNDS {
            gets.push((stock - 1, tokio::spawn(get(&cache, load.clone()))));
            tokio::time::sleep(Duration::from_millis(4)).await;
            primary.put(loaf(stock));
            cache.invalidate("p-001").await.unwrap();
        }
        for (stock, get) in gets {
            let got = get.await.unwrap().unwrap().unwrap();
            assert!(got.stock >= stock, "{} is older than {stock}", got.stock);
        }
        assert_eq!(get(&cache, load).await.unwrap().unwrap().stock, ROUNDS);
        assert_eq!(most.load(Ordering::SeqCst), 2);
        assert!(primary.loads() < u64::from(ROUNDS) / 2, "{}", primary.loads());
    })
    .await;
}
