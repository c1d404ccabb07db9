//! Many readers of one key at once: one load, all readers served soon after it, and no wait for a lock to expire.

use std::pin::pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cache_aside::{Backend, Cache, Error, Outcome};
use futures_util::poll;
use testkit::server::{Flavor, Server, client};
use tokio::sync::Barrier;

use crate::support::fixture::{
    Primary, Product, builder, connect, loaf, on_every_backend, on_every_server, products, until,
};

const READERS: usize = 1000;
const LATENCY: Duration = Duration::from_millis(150);
/// How long after the load the last reader may be served. On an idle machine it takes well under 60 ms, as the test
/// prints. This leaves room for a busy machine, and is still far below any wait for a lock.
const SOON: Duration = Duration::from_secs(10);

/// If a lease were left behind, a get would have to wait for a minute.
fn with_long_leases(backend: &Backend) -> Cache<Product> {
    builder(backend).lock_ttl(Duration::from_secs(60)).not_found_ttl(Duration::from_secs(20)).build().unwrap()
}

/// The results of the readers of one process.
struct Seen {
    outcomes: Vec<Outcome>,
    loads: u64,
    /// When the last reader was served, counted from the end of the load; for the process that loaded.
    last_after_load: Option<Duration>,
}

/// Reads with many tasks at once; `load` returns the value after some time.
async fn stampede(cache: &Cache<Product>, row: Option<Product>) -> Seen {
    let start = Arc::new(Barrier::new(READERS));
    let ended = Arc::new(std::sync::Mutex::new(None));
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let (cache, start, ended, row) = (cache.clone(), start.clone(), ended.clone(), row.clone());
            tokio::spawn(async move {
                start.wait().await;
                let load = move |_| async move {
                    tokio::time::sleep(LATENCY).await;
                    *ended.lock().unwrap() = Some(Instant::now());
                    Ok::<_, std::fmt::Error>(row)
                };
                let lookup = cache.lookup("p-001", load).await.unwrap();
                (lookup.outcome, lookup.value, Instant::now())
            })
        })
        .collect();
    let mut outcomes = Vec::new();
    let mut last = None;
    for reader in readers {
        let (outcome, value, served) = reader.await.unwrap();
        assert_eq!(value.as_deref(), row.as_ref());
        outcomes.push(outcome);
        last = last.max(Some(served));
    }
    let ended = *ended.lock().unwrap();
    let last_after_load = last.zip(ended).map(|(last, ended)| last.saturating_duration_since(ended));
    Seen { outcomes, loads: cache.stats().loads, last_after_load }
}

fn count(outcomes: &[Outcome], wanted: &[Outcome]) -> usize {
    outcomes.iter().filter(|outcome| wanted.contains(outcome)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_readers_share_one_load() {
    on_every_backend(async |backend| {
        let cache = with_long_leases(&backend);
        let seen = stampede(&cache, Some(loaf(42))).await;
        assert_eq!((seen.loads, count(&seen.outcomes, &[Outcome::Loaded])), (1, 1));
        println!("the last of {READERS} readers was served {:?} after the load", seen.last_after_load);
        assert!(seen.last_after_load.unwrap() < SOON, "{:?}", seen.last_after_load);
        let stats = cache.stats();
        assert_eq!(stats.hits + stats.misses, READERS as u64);
        assert_eq!(stats.stampedes_suppressed + stats.hits, READERS as u64 - 1);
        assert_eq!(cache.inspect("p-001").await.unwrap().lock_ttl, None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_readers_of_a_missing_id_share_one_load() {
    on_every_backend(async |backend| {
        let cache = with_long_leases(&backend);
        let seen = stampede(&cache, None).await;
        assert_eq!((seen.loads, count(&seen.outcomes, &[Outcome::Loaded])), (1, 1));
        let served = count(&seen.outcomes, &[Outcome::Coalesced, Outcome::Waited, Outcome::NotFoundHit]);
        assert_eq!(served, READERS - 1, "from the flight or the not-found entry");
        println!("the last of {READERS} readers was served {:?} after the load", seen.last_after_load);
        assert!(seen.last_after_load.unwrap() < SOON, "{:?}", seen.last_after_load);

        let primary = Primary::of(loaf(1));
        cache.invalidate("p-001").await.unwrap();
        assert_eq!(cache.get("p-001", primary.loader()).await.unwrap().as_deref(), Some(&loaf(1)));
    })
    .await;
}

/// Makes a call, and counts it once it has begun.
async fn counted<R>(begun: &AtomicUsize, call: impl Future<Output = R>) -> R {
    let mut call = pin!(call);
    let first = poll!(call.as_mut());
    begun.fetch_add(1, Ordering::SeqCst);
    match first {
        Poll::Ready(result) => result,
        Poll::Pending => call.await,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_loader_fails_all_readers_at_once_and_leaves_no_lease() {
    on_every_backend(async |backend| {
        let cache = with_long_leases(&backend);
        let (loads, begun) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let start = Arc::new(Barrier::new(READERS));
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                let (cache, start, loads, begun) = (cache.clone(), start.clone(), loads.clone(), begun.clone());
                tokio::spawn(async move {
                    start.wait().await;
                    let all = begun.clone();
                    let fail = move |_| async move {
                        loads.fetch_add(1, Ordering::SeqCst);
                        while all.load(Ordering::SeqCst) < READERS {
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                        // Those that read the cache first have joined by then.
                        tokio::time::sleep(Duration::from_millis(500)).await;
                        Err::<Option<Product>, _>(std::io::Error::other("the primary is down"))
                    };
                    counted(&begun, cache.get("p-001", fail)).await
                })
            })
            .collect();
        for reader in readers {
            let error = reader.await.unwrap().unwrap_err();
            assert!(matches!(error, Error::Load { .. }), "{error}");
            assert_eq!(error.downcast_ref::<std::io::Error>().unwrap().to_string(), "the primary is down");
        }
        assert_eq!(loads.load(Ordering::SeqCst), 1);
        assert_eq!((cache.stats().load_errors, cache.stats().misses), (1, READERS as u64));
        let began = Instant::now();
        let primary = Primary::of(loaf(1));
        assert!(cache.get("p-001", primary.loader()).await.unwrap().is_some());
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    })
    .await;
}

const PROCESSES: usize = 4;
const CHILD_OF: &str = "CACHE_ASIDE_STAMPEDE_URL";

/// The test starts its own program again as three more processes, each with its readers.
#[test]
fn a_thousand_readers_in_each_of_four_processes_share_one_load() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match std::env::var(CHILD_OF) {
        Ok(urls) => runtime.block_on(read_as_child(&urls)),
        Err(_) => runtime.block_on(async {
            for flavor in Flavor::ALL {
                let server = Server::start(flavor).await;
                let took = stampede_of_processes(&server.url(), &server).await;
                let calls = server.calls().await;
                let first_reads = calls["hmget"];
                assert!(first_reads <= (PROCESSES * READERS) as u64, "{calls:?}");
                // A lookup asks for the TTL too, in the same round trip.
                let expected = ["sadd", "scard", "config|resetstat", "pttl"];
                let all: u64 =
                    calls.iter().filter(|(name, _)| !expected.contains(&name.as_str())).map(|(_, calls)| calls).sum();
                println!("{} commands beside the first reads", all - first_reads);
                // Three processes poll every 10 to 20 ms, with three commands each time.
                assert!(u128::from(all - first_reads) < took.max(200), "{calls:?} in {took} ms");
            }
        }),
    }
}

/// The processes use the cache at `url`, and wait for each other at the server. Returns how long all of it took, in ms.
pub(crate) async fn stampede_of_processes(url: &str, server: &Server) -> u128 {
    let children: Vec<_> = (0..PROCESSES)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "protocol::stampede::a_thousand_readers_in_each_of_four_processes_share_one_load",
                    "--nocapture",
                ])
                .env(CHILD_OF, format!("{url} {}", server.url()))
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    // All children register, and start when the last one has.
    let mut client = server.client().await;
    until(Duration::from_secs(60), "not all children have started", async || {
        redis::cmd("SCARD").arg("ready").query_async::<usize>(&mut client).await.unwrap() >= PROCESSES
    })
    .await;
    redis::cmd("CONFIG").arg("RESETSTAT").exec_async(&mut client).await.unwrap();
    let began = wall_clock();
    redis::cmd("SADD").arg("go").arg("1").exec_async(&mut client).await.unwrap();
    let reports: Vec<String> = children
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "a child failed");
            let output = String::from_utf8(output.stdout).unwrap();
            output.lines().find_map(|line| line.split_once("report: ")).unwrap().1.to_owned()
        })
        .collect();
    let figures: Vec<Vec<u128>> =
        reports.iter().map(|report| report.split(' ').map(|figure| figure.parse().unwrap()).collect()).collect();
    let loads: u128 = figures.iter().map(|figures| figures[0]).sum();
    assert_eq!(loads, 1, "{reports:?}");
    let ended = figures.iter().map(|figures| figures[1]).max().unwrap();
    let last = figures.iter().map(|figures| figures[2]).max().unwrap();
    println!("the last reader of {} was served {} ms after the load", PROCESSES * READERS, last - ended);
    assert!(last - ended < SOON.as_millis(), "the last reader was served {} ms after the load", last - ended);
    last - began
}

/// In ms.
fn wall_clock() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

/// Prints the loads of this process, and when its load ended and its last reader was served, in ms of wall-clock time.
async fn read_as_child(urls: &str) {
    let (url, server) = urls.split_once(' ').unwrap();
    let cache = with_long_leases(&connect(url).await);
    let mut client = client(server).await.unwrap();
    redis::cmd("SADD").arg("ready").arg(std::process::id()).exec_async(&mut client).await.unwrap();
    while !redis::cmd("SCARD").arg("go").query_async::<bool>(&mut client).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let seen = stampede(&cache, Some(loaf(42))).await;
    let now = wall_clock();
    let ended = seen.last_after_load.map_or(0, |after| now - after.as_millis());
    println!("report: {} {ended} {now}", seen.loads);
}

/// The waiters of another process share one poller.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_polls_once_per_key() {
    on_every_server(async |server, backend| {
        let cache = products(&backend);
        let mut holder = server.client().await;
        let lock = "{cache:billing:product:p-001}:lock";
        redis::cmd("SET").arg(&[lock, "a token", "PX", "400"]).exec_async(&mut holder).await.unwrap();
        redis::cmd("CONFIG").arg("RESETSTAT").exec_async(&mut holder).await.unwrap();
        let seen = stampede(&cache, Some(loaf(42))).await;
        assert_eq!(seen.loads, 1);
        let calls = server.calls().await;
        assert!(calls["set"] < 60, "{calls:?}");
    })
    .await;
}
