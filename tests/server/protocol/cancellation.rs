//! Gets that are dropped at any point: the flights that they lead still end, and nothing is left behind.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use cache_aside::{Backend, BoxError, Cache, proof};
use rand::RngExt;
use redis::aio::MultiplexedConnection;
use testkit::server::{Flavor, Server};
use tokio::runtime::Handle;
use tokio::task::{JoinSet, yield_now};

use crate::support::fixture::{Found, Product, builder, connect, loaf, settle};

const CANCELLED: usize = 100_000;
const CALLERS: usize = 200;
/// The number of gets in a row for the same key.
const GETS_OF_A_KEY: usize = 16;
const TIME_TO_END_IN: Duration = Duration::from_secs(30);

/// The point at which a get is dropped.
#[derive(Clone, Copy)]
enum Cut {
    Unpolled,
    AfterPolls(u32),
    After(Duration),
}

impl Cut {
    fn random() -> Self {
        let mut rng = rand::rng();
        match rng.random_range(0..8) {
            0 => Self::Unpolled,
            1 => Self::AfterPolls(1),
            2..6 => Self::AfterPolls(rng.random_range(2..8)),
            _ => Self::After(Duration::from_micros(rng.random_range(0..3000))),
        }
    }

    /// Polls a get until its cut; returns whether it was cut before its end.
    async fn cut(self, get: impl Future) -> bool {
        let mut get = pin!(get);
        match self {
            Self::Unpolled => true,
            Self::AfterPolls(polls) => {
                for _ in 0..polls {
                    if poll_fn(|context| Poll::Ready(get.as_mut().poll(context).is_ready())).await {
                        return false;
                    }
                    yield_now().await;
                }
                true
            }
            Self::After(limit) => tokio::time::timeout(limit, get).await.is_err(),
        }
    }
}

/// Loads that take no time, a few turns of the scheduler or a few milliseconds, with every possible result.
fn load(id: String) -> Found {
    let (turns, pause, end) = {
        let mut rng = rand::rng();
        (rng.random_range(0..10), rng.random_range(0..4_u64), rng.random_range(0..8))
    };
    Box::pin(async move {
        for _ in 0..turns {
            yield_now().await;
        }
        if pause > 1 {
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        match end {
            0 => Err(BoxError::from("the primary is down")),
            1 => Ok(None),
            _ => Ok(Some(Product { id, ..loaf(1) })),
        }
    })
}

/// Two caches over one backend, like two processes: gets wait for flights of their own, and for the other's lease.
#[derive(Clone)]
struct Caches([Cache<Product>; 2]);

impl Caches {
    fn over(backend: &Backend) -> Self {
        // A lease that is left behind still exists when the test looks.
        let cache = || builder(backend).lock_ttl(Duration::from_secs(60)).build().unwrap();
        Self([cache(), cache()])
    }

    fn flights(&self) -> usize {
        self.0.iter().map(proof::flights).sum()
    }

    fn loads(&self) -> u64 {
        self.0.iter().map(|cache| cache.stats().loads).sum()
    }

    /// Starts dropped gets in many tasks until there were enough; returns the ids.
    async fn cut_gets(&self) -> Vec<String> {
        let (begun, cut) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (caches, begun, cut) = (self.clone(), begun.clone(), cut.clone());
            callers.spawn(async move {
                while cut.load(Ordering::Relaxed) < CANCELLED {
                    let number = begun.fetch_add(1, Ordering::Relaxed);
                    let cache = &caches.0[number % 2];
                    let get = cache.get(id(number), load);
                    if Cut::random().cut(get).await {
                        cut.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        while let Some(caller) = callers.join_next().await {
            caller.unwrap();
        }
        (0..begun.load(Ordering::Relaxed)).step_by(GETS_OF_A_KEY).map(id).collect()
    }
}

fn id(number: usize) -> String {
    format!("p-{}", number / GETS_OF_A_KEY)
}

/// The resources of a server and this runtime at one time.
#[derive(Debug)]
struct Held {
    tasks: usize,
    clients: usize,
    locks: Vec<String>,
}

impl Held {
    async fn now(server: Option<&mut MultiplexedConnection>) -> Self {
        let tasks = Handle::current().metrics().num_alive_tasks();
        let Some(server) = server else {
            return Self { tasks, clients: 0, locks: Vec::new() };
        };
        let info: String = redis::cmd("INFO").arg("clients").query_async(server).await.unwrap();
        let clients = info.lines().find_map(|line| line.strip_prefix("connected_clients:")).unwrap();
        let locks = redis::cmd("KEYS").arg("*:lock").query_async(server).await.unwrap();
        Self { tasks, clients: clients.parse().unwrap(), locks }
    }

    fn is_at_most(&self, before: &Self) -> bool {
        self.tasks <= before.tasks && self.clients <= before.clients && self.locks.is_empty()
    }
}

async fn cancelled_gets_leave_nothing(backend: &Backend, mut server: Option<MultiplexedConnection>) {
    let caches = Caches::over(backend);
    caches.0[0].get("p-warm", |id| async { Ok::<_, BoxError>(Some(Product { id, ..loaf(1) })) }).await.unwrap();
    settle().await;
    let before = Held::now(server.as_mut()).await;

    let began = Instant::now();
    let ids = caches.cut_gets().await;
    let (loads, took) = (caches.loads(), began.elapsed());
    println!("{CANCELLED} gets of {} ids cancelled in {took:?}, {loads} loads", ids.len());
    // A few are enough: a busy machine drops most gets before they begin to load.
    assert!(loads > 0, "all gets were over before they began to load");

    let ended = Instant::now();
    loop {
        let (flights, held) = (caches.flights(), Held::now(server.as_mut()).await);
        if flights == 0 && held.is_at_most(&before) {
            break;
        }
        assert!(ended.elapsed() < TIME_TO_END_IN, "{flights} flights, {held:?}; before: {before:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("all gone after {:?}", ended.elapsed());

    let cache = &caches.0[1];
    for id in &ids {
        assert_eq!(cache.inspect(id).await.unwrap().lock_ttl, None);
    }
    cache.invalidate(&ids[0]).await.unwrap();
    let fresh = cache.get(&ids[0], |id| async { Ok::<_, BoxError>(Some(Product { id, ..loaf(7) })) });
    let fresh = tokio::time::timeout(Duration::from_secs(20), fresh).await.unwrap().unwrap();
    assert_eq!(fresh.unwrap().stock, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_cancelled_gets_leave_nothing() {
    cancelled_gets_leave_nothing(&connect("memory://").await, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_cancelled_gets_leave_nothing_on_a_server() {
    let server = Server::start(Flavor::Redis70).await;
    let client = server.client().await;
    cancelled_gets_leave_nothing(&connect(&server.url()).await, Some(client)).await;
}
