//! Servers whose place is taken with an older state: no process gets what it has overwritten itself, and the others get it for a
//! moment at most.

mod guards;
mod promotion;
mod restart;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cache_aside::{Backend, Cache, Outcome};
use testkit::server::{Flavor, Server};
use tokio::task::JoinHandle;

use crate::support::fixture::{Primary, Product, builder, loaf, until};

const FLAVORS: [Flavor; 2] = [Flavor::Redis70, Flavor::Valkey91];
const LIMIT: Duration = Duration::from_secs(20);

/// Stands for a process: its connections, and what it knows of its own writes.
struct Process {
    cache: Cache<Product>,
}

impl Process {
    /// With timeouts that a busy machine can keep, and entries that outlive the test.
    async fn start(url: &str) -> Self {
        let backend = Backend::builder(url).operation_timeout(Duration::from_secs(2)).connect().await.unwrap();
        Self { cache: builder(&backend).ttl(Duration::from_secs(600)).build().unwrap() }
    }

    /// Loads, or hits, some records.
    async fn read(&self, primary: &Primary, numbers: impl Iterator<Item = usize>) {
        let found = self.cache.get_many(numbers.map(|number| number.to_string()), one_by_one(primary)).await;
        assert!(found.into_iter().all(|found| found.unwrap().is_some()));
    }

    async fn uses_cache_again(&self, primary: &Primary) {
        let is_used = async || self.cache.lookup("7", primary.loader()).await.unwrap().outcome == Outcome::Hit;
        until(LIMIT, "the cache is not used again", is_used).await;
    }

    async fn invalidate(&self, numbers: impl Iterator<Item = usize>) {
        let invalidated = self.cache.invalidate_many(numbers.map(|number| number.to_string())).await;
        assert!(invalidated.iter().all(Result::is_ok), "{invalidated:?}");
    }
}

fn one_by_one(primary: &Primary) -> impl Fn(Vec<String>) -> Rows + Send + Sync + Clone + 'static {
    let load = primary.loader();
    move |ids| {
        let loads: Vec<_> = ids.into_iter().map(&load).collect();
        Box::pin(async move {
            let rows = futures_util::future::try_join_all(loads).await?;
            Ok(rows.into_iter().flatten().collect())
        })
    }
}

type Rows = std::pin::Pin<Box<dyn Future<Output = Result<Vec<Product>, cache_aside::BoxError>> + Send>>;

fn put(primary: &Primary, numbers: impl Iterator<Item = usize>, version: u32) {
    for number in numbers {
        primary.put(Product { id: number.to_string(), ..loaf(version) });
    }
}

/// Reads some records again and again, and notes which gets return an older version than 2.
struct Watch {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Seen>,
}

struct Seen {
    reads: Vec<Read>,
    /// The longest delay of this machine.
    lag: Duration,
}

struct Read {
    began: Instant,
    outcome: Outcome,
    version: u32,
}

impl Watch {
    fn start(process: &Process, primary: &Primary, numbers: std::ops::Range<usize>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (cache, primary, stopped) = (process.cache.clone(), primary.clone(), stop.clone());
        let task = tokio::spawn(async move {
            const NAP: Duration = Duration::from_millis(2);
            let (mut reads, mut lag) = (Vec::new(), Duration::ZERO);
            while !stopped.load(Ordering::SeqCst) {
                for chunk in numbers.clone().collect::<Vec<_>>().chunks(50) {
                    let gets = chunk.iter().map(async |&number| {
                        let began = Instant::now();
                        let found = cache.lookup(number.to_string(), primary.loader()).await.unwrap();
                        Read { began, outcome: found.outcome, version: found.value.unwrap().stock }
                    });
                    reads.extend(futures_util::future::join_all(gets).await);
                    let began = Instant::now();
                    tokio::time::sleep(NAP).await;
                    lag = lag.max(began.elapsed().saturating_sub(NAP));
                }
            }
            Seen { reads, lag }
        });
        Self { stop, task }
    }

    async fn end(self) -> Seen {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap()
    }
}

fn old(reads: &[Read]) -> Vec<&Read> {
    reads.iter().filter(|read| read.version < 2).collect()
}

/// Makes a replica miss what is written from now on: it stands still, and its master hangs up.
async fn cut_off(master: &Server, replicas: &[&Server]) {
    replicas.iter().for_each(|replica| replica.freeze());
    let mut operator = master.client().await;
    redis::cmd("CLIENT").arg(&["KILL", "TYPE", "replica"]).exec_async(&mut operator).await.unwrap();
}
