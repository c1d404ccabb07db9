//! Load that goes on while something happens to the server: readers and a writer over two caches, each call checked and
//! timed, and a count of all that may leak.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cache_aside::{Backend, Cache, Error, Outcome, proof};
use rand::RngExt;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::fixture::{Primary, Product, builder};
use crate::harness::Server;

pub(crate) const LOCK_TTL: Duration = Duration::from_millis(200);
pub(crate) const OPERATION_TIMEOUT: Duration = Duration::from_millis(250);
const WAIT_TIMEOUT: Duration = Duration::from_millis(500);
const LOAD_TIMEOUT: Duration = Duration::from_secs(1);
const UPDATE_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a read may take: its own look, waiting for another's load, a load, and the steps between.
const READ_LIMIT: Duration =
    WAIT_TIMEOUT.saturating_add(LOAD_TIMEOUT).saturating_add(OPERATION_TIMEOUT.saturating_mul(4));
/// What a busy machine may add to a deadline.
const SLACK: Duration = Duration::from_secs(2);

const READERS: usize = 8;
const RECORDS: usize = 6;

/// Two caches with connections of their own, as two processes have them, and who uses them.
pub(crate) struct Traffic {
    caches: [Cache<Product>; 2],
    table: Arc<Table>,
    tasks: Vec<JoinHandle<()>>,
    at_rest: Open,
}

/// The records, and what came of the calls so far.
struct Table {
    records: Vec<Record>,
    primary: Primary,
    stop: AtomicBool,
    seen: Mutex<Seen>,
}

/// One record: which version is committed, and which one every get sees at least that starts now.
struct Record {
    id: String,
    committed: AtomicU32,
    floor: AtomicU32,
}

/// What the load came to.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) outcomes: BTreeMap<String, u64>,
    pub(crate) applied_updates: u64,
    /// Writes that the server refused, or that did not reach it.
    pub(crate) refused_writes: u64,
    /// Writes whose reply did not come in time.
    pub(crate) late_writes: u64,
}

/// What must be as before when the load has ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Open {
    tasks: usize,
    flights: usize,
    connections: usize,
}

impl Traffic {
    /// Connects over `url`, uses everything once, and counts what is open; then the load begins.
    pub(crate) async fn start(url: &str, server: &Server) -> Self {
        let table = Arc::new(Table::new());
        let caches = [cache(url).await, cache(url).await];
        let mut traffic = Self { caches, table, tasks: Vec::new(), at_rest: Open::default() };
        assert!(traffic.serves().await);
        traffic.at_rest = traffic.open(server).await;
        for (reader, cache) in (0..READERS).zip(traffic.caches.iter().cycle()) {
            let (table, cache) = (traffic.table.clone(), cache.clone());
            traffic.tasks.push(tokio::spawn(async move { table.read_on(&cache, reader).await }));
        }
        let (table, caches) = (traffic.table.clone(), traffic.caches.clone());
        traffic.tasks.push(tokio::spawn(async move { table.write_on(&caches).await }));
        traffic
    }

    /// Waits until reads and updates go through both caches again.
    pub(crate) async fn is_back_within(&self, limit: Duration) {
        let began = Instant::now();
        while !self.serves().await {
            assert!(began.elapsed() < limit, "not back after {:?}", began.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        println!("  back after {:?}", began.elapsed());
    }

    /// Ends the load, and checks that every record is fresh and nothing is left over.
    pub(crate) async fn stop(self, server: &Server) -> Seen {
        self.table.stop.store(true, Ordering::SeqCst);
        let mut traffic = self;
        for task in traffic.tasks.drain(..) {
            task.await.unwrap();
        }
        for record in &traffic.table.records {
            for cache in &traffic.caches {
                traffic.table.read(cache, record).await;
            }
        }
        let began = Instant::now();
        loop {
            let open = if traffic.serves().await { traffic.open(server).await } else { Open::default() };
            if open == traffic.at_rest {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(10), "{open:?} is left, but there was {:?}", traffic.at_rest);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let seen = std::mem::take(&mut *traffic.table.seen.lock().unwrap());
        println!("  {seen:?}");
        seen
    }

    /// Whether both caches are in use, with every connection that they may have.
    async fn serves(&self) -> bool {
        for cache in &self.caches {
            let lookup = cache.lookup("p-0", self.table.primary.loader()).await.unwrap();
            if lookup.outcome == Outcome::Bypassed || cache.modify("p-0", |_| ()).await.is_err() {
                return false;
            }
        }
        true
    }

    async fn open(&self, server: &Server) -> Open {
        Open {
            connections: server.connections().await,
            flights: self.caches.iter().map(proof::flights).sum(),
            tasks: Handle::current().metrics().num_alive_tasks(),
        }
    }
}

/// A cache with a shared connection and one for updates.
async fn cache(url: &str) -> Cache<Product> {
    let backend = Backend::builder(url).operation_timeout(OPERATION_TIMEOUT).update_connections(1);
    builder(&backend.connect().await.unwrap())
        .ttl(Duration::from_millis(300))
        .not_found_ttl(None)
        .lock_ttl(LOCK_TTL)
        .wait_timeout(WAIT_TIMEOUT)
        .load_timeout(LOAD_TIMEOUT)
        .update_timeout(UPDATE_TIMEOUT)
        .build()
        .unwrap()
}

impl Table {
    fn new() -> Self {
        let primary = Primary::default().with_latency(Duration::from_millis(5));
        let record =
            |number| Record { id: format!("p-{number}"), committed: AtomicU32::new(1), floor: AtomicU32::new(1) };
        let records: Vec<_> = (0..RECORDS).map(record).collect();
        records.iter().for_each(|record| primary.put(record.row(1)));
        Self { records, primary, stop: AtomicBool::new(false), seen: Mutex::default() }
    }

    fn is_going_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    async fn read_on(&self, cache: &Cache<Product>, reader: usize) {
        for record in self.records.iter().cycle().skip(reader).take_while(|_| self.is_going_on()) {
            self.read(cache, record).await;
            pause().await;
        }
    }

    /// Gets a record: what comes is whole, no older than what had returned before, and there within the deadline.
    async fn read(&self, cache: &Cache<Product>, record: &Record) {
        let floor = record.floor.load(Ordering::SeqCst);
        let got = timed(READ_LIMIT, cache.lookup(record.id.as_str(), self.primary.loader())).await.unwrap();
        let product = got.value.expect("the primary has it");
        record.check(&product, floor);
        *self.seen.lock().unwrap().outcomes.entry(format!("{:?}", got.outcome)).or_default() += 1;
        let floor = record.floor.load(Ordering::SeqCst);
        if let Ok(Some(product)) = timed(OPERATION_TIMEOUT, cache.peek(record.id.as_str())).await {
            record.check(&product, floor);
        }
    }

    /// Commits versions, and invalidates or updates after each.
    async fn write_on(&self, caches: &[Cache<Product>; 2]) {
        let writes = self.records.iter().enumerate().cycle().zip(caches.iter().cycle());
        for ((number, record), cache) in writes.take_while(|_| self.is_going_on()) {
            let version = record.committed.load(Ordering::SeqCst) + 1;
            let row = record.row(version);
            record.committed.store(version, Ordering::SeqCst);
            self.primary.put(row.clone());
            let mut written = match number % 3 {
                0 => timed(OPERATION_TIMEOUT, cache.invalidate(record.id.as_str())).await,
                1 => self.applied(timed(UPDATE_TIMEOUT, set_all(cache, row)).await),
                _ => {
                    let modify = cache.modify(record.id.as_str(), |product| *product = row.clone());
                    self.applied(timed(UPDATE_TIMEOUT, modify).await.map(|stored| stored.is_some()))
                }
            };
            while let Err(error) = written {
                self.count_failed(&error);
                pause().await;
                // The outcome of the first try is unknown: only an invalidation is right now.
                written = timed(OPERATION_TIMEOUT, cache.invalidate(record.id.as_str())).await;
            }
            record.floor.store(version, Ordering::SeqCst);
            pause().await;
        }
    }

    fn count_failed(&self, error: &Error) {
        let mut seen = self.seen.lock().unwrap();
        match error {
            Error::Backend { .. } => seen.refused_writes += 1,
            Error::Timeout { .. } => seen.late_writes += 1,
            other => panic!("{other:?} is not about the server"),
        }
    }

    fn applied(&self, updated: Result<bool, Error>) -> Result<bool, Error> {
        self.seen.lock().unwrap().applied_updates += u64::from(matches!(updated, Ok(true)));
        updated
    }
}

impl Record {
    /// The row of a version: each field tells which one it is.
    fn row(&self, version: u32) -> Product {
        Product {
            id: self.id.clone(),
            name: format!("version {version}"),
            price_cents: i64::from(version) * 7,
            stock: version,
            note: (version % 2 == 1).then(|| version.to_string()),
        }
    }

    fn check(&self, product: &Product, floor: u32) {
        assert_eq!(*product, self.row(product.stock), "it is torn");
        assert!(product.stock >= floor, "{product:?} is older than version {floor}");
        let committed = self.committed.load(Ordering::SeqCst);
        assert!(product.stock <= committed, "{product:?} is newer than version {committed}");
    }
}

async fn set_all(cache: &Cache<Product>, row: Product) -> Result<bool, Error> {
    let fields = Product::FIELDS;
    let changes = [
        fields.name.set(row.name),
        fields.price_cents.set(row.price_cents),
        fields.stock.set(row.stock),
        fields.note.set(row.note),
    ];
    cache.update_fields(row.id.as_str(), changes).await
}

/// Waits for a call, which has to end by its deadline.
async fn timed<R>(limit: Duration, call: impl Future<Output = R>) -> R {
    let ended = tokio::time::timeout(limit + SLACK, call).await;
    ended.unwrap_or_else(|_elapsed| panic!("a call did not end within {limit:?}, nor {SLACK:?} after"))
}

async fn pause() {
    let pause = rand::rng().random_range(0..3000);
    tokio::time::sleep(Duration::from_micros(pause)).await;
}
