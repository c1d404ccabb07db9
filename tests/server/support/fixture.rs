//! A struct, a primary that counts its reads, a gate to hold a load at, and the backends.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cache_aside::{Backend, BoxError, Cache, CacheBuilder, Cacheable, Error, Lookup, Outcome};
use redis::aio::MultiplexedConnection;
use testkit::cluster;
use testkit::server::{Flavor, Server};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

#[derive(Debug, Clone, PartialEq, Cacheable)]
#[cacheable(namespace = "billing", entity = "product", ttl = "30s", not_found_ttl = "2s")]
pub(crate) struct Product {
    #[cacheable(id)]
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) price_cents: i64,
    pub(crate) stock: u32,
    pub(crate) note: Option<String>,
}

pub(crate) fn loaf(stock: u32) -> Product {
    Product { id: "p-001".into(), name: "Sourdough Loaf".into(), price_cents: 650, stock, note: None }
}

/// Runs a test on the embedded backend and on one server of each flavor; or, once more, on a cluster.
pub(crate) async fn on_every_backend(test: impl AsyncFn(Backend)) {
    if let Some(url) = cluster::once_more_on().await {
        return test(connect(&url).await).await;
    }
    test(connect("memory://").await).await;
    for flavor in Flavor::ALL {
        println!("on {flavor:?}");
        let server = Server::start(flavor).await;
        test(connect(&server.url()).await).await;
    }
}

/// Runs a test on one server of each flavor.
pub(crate) async fn on_every_server(test: impl AsyncFn(&Server, Backend)) {
    for flavor in Flavor::ALL {
        println!("on {flavor:?}");
        let server = Server::start(flavor).await;
        test(&server, connect(&server.url()).await).await;
    }
}

/// Connects with a deadline that a busy machine can keep: with the default, reads would go around the cache there.
pub(crate) async fn connect(url: &str) -> Backend {
    let limit = Duration::from_secs(5);
    Backend::builder(url).operation_timeout(limit).heartbeat_timeout(limit).connect().await.unwrap()
}

/// The same, with a key prefix.
pub(crate) async fn connect_under(url: &str, key_prefix: &str) -> Backend {
    let limit = Duration::from_secs(5);
    let builder = Backend::builder(url).operation_timeout(limit).heartbeat_timeout(limit);
    builder.key_prefix(key_prefix).connect().await.unwrap()
}

pub(crate) fn products(backend: &Backend) -> Cache<Product> {
    builder(backend).build().unwrap()
}

/// A cache that remembers for longer than a test takes that there is no record.
pub(crate) fn remembering(backend: &Backend) -> Cache<Product> {
    builder(backend).not_found_ttl(Duration::from_secs(20)).build().unwrap()
}

pub(crate) fn builder(backend: &Backend) -> CacheBuilder<Product> {
    Cache::builder(backend.clone())
}

pub(crate) type Found = Pin<Box<dyn Future<Output = Result<Option<Product>, BoxError>> + Send>>;

/// A primary database: rows, a latency, whether it is down, and a count of its reads.
#[derive(Clone, Default)]
pub(crate) struct Primary {
    rows: Arc<Mutex<HashMap<String, Product>>>,
    loads: Arc<AtomicU64>,
    down: Arc<AtomicBool>,
    latency: Duration,
}

impl Primary {
    pub(crate) fn of(product: Product) -> Self {
        let primary = Self::default();
        primary.put(product);
        primary
    }

    pub(crate) fn with_latency(self, latency: Duration) -> Self {
        Self { latency, ..self }
    }

    pub(crate) fn put(&self, product: Product) {
        self.rows.lock().unwrap().insert(product.id.clone(), product);
    }

    pub(crate) fn remove(&self, id: &str) {
        self.rows.lock().unwrap().remove(id);
    }

    /// Makes each read fail from now on, or no longer.
    pub(crate) fn down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    pub(crate) fn loads(&self) -> u64 {
        self.loads.load(Ordering::SeqCst)
    }

    /// A loader that reads the row, and returns it after some time.
    pub(crate) fn loader(&self) -> impl Fn(String) -> Found + Clone + Send + Sync + 'static {
        let primary = self.clone();
        move |id| {
            let primary = primary.clone();
            Box::pin(async move {
                primary.loads.fetch_add(1, Ordering::SeqCst);
                let row = primary.rows.lock().unwrap().get(&id).cloned();
                tokio::time::sleep(primary.latency).await;
                if primary.down.load(Ordering::SeqCst) {
                    return Err("the primary is down".into());
                }
                Ok(row)
            })
        }
    }

    /// A loader that reads the row, and then waits at the gate.
    pub(crate) fn gated(&self, gate: &Gate) -> impl Fn(String) -> Found + Clone + Send + Sync + 'static {
        let (load, gate) = (self.loader(), gate.clone());
        move |id| {
            let (loading, gate) = (load(id), gate.clone());
            Box::pin(async move {
                let row = loading.await;
                gate.pass().await;
                row
            })
        }
    }
}

/// Holds everyone who passes until it is opened.
#[derive(Clone)]
pub(crate) struct Gate {
    arrived: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn closed() -> Self {
        Self { arrived: Arc::new(Semaphore::new(0)), open: Arc::new(Semaphore::new(0)) }
    }

    /// Waits at the gate.
    pub(crate) async fn pass(&self) {
        self.arrived.add_permits(1);
        self.open.acquire().await.unwrap().forget();
    }

    /// Waits until somebody waits at the gate.
    pub(crate) async fn arrival(&self) {
        self.arrived.acquire().await.unwrap().forget();
    }

    /// Lets everyone pass from now on.
    pub(crate) fn open(&self) {
        self.open.add_permits(Semaphore::MAX_PERMITS >> 1);
    }
}

/// Waits until a condition holds, and fails with a message if that takes longer than `limit`.
pub(crate) async fn until(limit: Duration, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < limit, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The id on the server of the connection that all steps of a backend share: the oldest, since it is made first.
pub(crate) async fn shared_connection(operator: &mut MultiplexedConnection) -> u64 {
    let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(operator).await.unwrap();
    let ids = clients.lines().filter_map(|line| line.split(' ').next()?.strip_prefix("id=")?.parse().ok());
    ids.min().unwrap()
}

/// Makes a server close that connection.
pub(crate) async fn kill_shared_connection(server: &Server) {
    let mut operator = server.client().await;
    let id = shared_connection(&mut operator).await;
    redis::cmd("CLIENT").arg("KILL").arg("ID").arg(id).exec_async(&mut operator).await.unwrap();
}

/// Waits until a get goes through the cache again.
pub(crate) async fn comes_back(cache: &Cache<Product>, primary: &Primary, limit: Duration) {
    let is_used = async || lookup(cache, primary.loader()).await.unwrap().outcome != Outcome::Bypassed;
    until(limit, "the cache is not used again", is_used).await;
}

/// Loads the one product, hits it, updates it and invalidates it.
pub(crate) async fn lives_a_whole_life(cache: &Cache<Product>) {
    let primary = Primary::of(loaf(1));
    assert_eq!(lookup(cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
    assert_eq!(lookup(cache, primary.loader()).await.unwrap().outcome, Outcome::Hit);
    assert!(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());
    assert_eq!(cache.peek("p-001").await.unwrap().as_deref(), Some(&loaf(2)));
    assert!(cache.invalidate("p-001").await.unwrap());
    assert_eq!(cache.peek("p-001").await.unwrap(), None);
}

/// Lets tasks that were just spawned run until they wait.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// A `get` of the one product, for a task of its own.
pub(crate) fn get(
    cache: &Cache<Product>,
    loader: impl Fn(String) -> Found + Send + Sync + 'static,
) -> impl Future<Output = Result<Option<Arc<Product>>, Error>> + Send + 'static {
    let lookup = lookup(cache, loader);
    async move { Ok(lookup.await?.value) }
}

/// A `lookup` of the one product, for a task of its own.
pub(crate) fn lookup(
    cache: &Cache<Product>,
    loader: impl Fn(String) -> Found + Send + Sync + 'static,
) -> impl Future<Output = Result<Lookup<Product>, Error>> + Send + 'static {
    let cache = cache.clone();
    async move { cache.lookup("p-001", loader).await }
}

/// Starts a get whose loader has read the row, and is held at the gate.
pub(crate) async fn load_at_gate(
    cache: &Cache<Product>,
    primary: &Primary,
) -> (Gate, JoinHandle<Result<Option<Arc<Product>>, Error>>) {
    let gate = Gate::closed();
    let get = tokio::spawn(get(cache, primary.gated(&gate)));
    gate.arrival().await;
    (gate, get)
}

/// Waits until no invalidation is pending.
pub(crate) async fn until_applied(cache: &Cache<Product>) {
    const LIMIT: Duration = Duration::from_secs(20);
    until(LIMIT, "invalidations still wait", async || cache.pending().is_empty()).await;
}

/// A backend on a frozen server, with an entry of stock 1, and the primary, which has stock 2 by now.
pub(crate) async fn frozen_with_an_old_entry(flavor: Flavor) -> (Server, Cache<Product>, Primary) {
    let server = Server::start(flavor).await;
    let backend = Backend::builder(&server.url()).operation_timeout(Duration::from_millis(100));
    let cache = products(&backend.connect().await.unwrap());
    let primary = Primary::of(loaf(1));
    cache.get("p-001", primary.loader()).await.unwrap();
    server.freeze();
    primary.put(loaf(2));
    (server, cache, primary)
}
