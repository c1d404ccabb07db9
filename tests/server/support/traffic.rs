//! Load during a fault of the server: readers and a writer over two caches, with each call checked and timed, and
//! counts of everything that may leak.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cache_aside::{Backend, Cache, Error, Outcome, proof};
use rand::RngExt;
use testkit::server::Server;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::support::fixture::{Primary, Product, builder};

pub(crate) const LOCK_TTL: Duration = Duration::from_millis(200);
pub(crate) const OPERATION_TIMEOUT: Duration = Duration::from_millis(250);
const WAIT_TIMEOUT: Duration = Duration::from_millis(500);
const LOADER_LATENCY: Duration = Duration::from_millis(5);
const UPDATE_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a flight may take: waiting for another process' load, a load, and the steps between.
const FLIGHT_LIMIT: Duration =
    WAIT_TIMEOUT.saturating_add(LOADER_LATENCY).saturating_add(OPERATION_TIMEOUT.saturating_mul(3));
/// A read has its own look first, and may be too late for the first flight that it joins.
const READ_LIMIT: Duration = OPERATION_TIMEOUT.saturating_add(FLIGHT_LIMIT.saturating_mul(2));
/// The longest wake-up delay on an idle machine; on a busy one it is measured.
const WAKING_UP: Duration = Duration::from_millis(100);
/// How long tasks and connections may come and go while nothing is asked for.
const TIME_TO_REST: Duration = Duration::from_secs(20);
/// The sleep whose delay is measured.
const NAP: Duration = Duration::from_millis(10);

const READERS: usize = 8;
const RECORDS: usize = 6;

/// Two caches with their own connections, like two processes, and their users.
pub(crate) struct Traffic {
    caches: [Cache<Product>; 2],
    table: Arc<Table>,
    tasks: Vec<JoinHandle<()>>,
    measuring: Option<JoinHandle<()>>,
    at_rest: Open,
}

/// The records, and the results of the calls so far.
struct Table {
    records: Vec<Record>,
    primary: Primary,
    stop: AtomicBool,
    seen: Mutex<Seen>,
    /// The delays of this machine so far, added up, in microseconds.
    delays: AtomicU64,
}

/// One record: the committed version, and the version that a get which starts now has to see at least.
struct Record {
    id: String,
    committed: AtomicU32,
    floor: AtomicU32,
}

/// The results of the load.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) outcomes: BTreeMap<String, u64>,
    pub(crate) applied_updates: u64,
    /// Writes that the server refused, or that didn't reach it.
    pub(crate) refused_writes: u64,
    /// Writes whose reply didn't come in time.
    pub(crate) late_writes: u64,
    /// Writes that were not sent, because the breaker was open.
    pub(crate) left_alone: u64,
    /// Whether a step had no reply in time, which opens the breaker if it happens often.
    pub(crate) is_unanswered: bool,
}

/// Resources whose number must be the same after the load.
#[derive(Debug, Default, PartialEq, Eq)]
struct Open {
    tasks: usize,
    flights: usize,
    connections: usize,
}

impl Traffic {
    /// Connects over `url`, uses everything once, and counts open resources; then the load begins.
    pub(crate) async fn start(url: &str, server: &Server) -> Self {
        let table = Arc::new(Table::new());
        let caches = [cache(url).await, cache(url).await];
        let mut traffic = Self { caches, table, tasks: Vec::new(), measuring: None, at_rest: Open::default() };
        traffic.is_back_within(Duration::from_secs(10)).await;
        traffic.at_rest = traffic.rest(server).await;
        let table = traffic.table.clone();
        traffic.measuring = Some(tokio::spawn(async move { table.measure_delays().await }));
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
        let (began, before) = (Instant::now(), self.table.delays());
        while !self.serves().await {
            assert!(began.elapsed() < limit + self.table.late_since(before), "not back after {:?}", began.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        println!("  back after {:?}", began.elapsed());
        self.table.check_time(began.elapsed(), limit, before).await;
    }

    /// Ends the load, and checks that every record is fresh and nothing has leaked.
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
        if let Some(measuring) = traffic.measuring.take() {
            measuring.abort();
            let _cancelled = measuring.await;
        }
        let began = Instant::now();
        loop {
            let open = if traffic.serves().await { traffic.open(server).await } else { Open::default() };
            if open == traffic.at_rest {
                break;
            }
            assert!(began.elapsed() < TIME_TO_REST, "{open:?} is left, but there was {:?}", traffic.at_rest);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let seen = std::mem::take(&mut *traffic.table.seen.lock().unwrap());
        println!("  {seen:?}");
        assert!(seen.applied_updates > 0, "no update met a live record");
        seen
    }

    /// Whether both caches are in use, with all connections that they may have.
    async fn serves(&self) -> bool {
        let [here, there] = &self.caches;
        let (here, there) = tokio::join!(self.table.serves(here), self.table.serves(there));
        here && there
    }

    /// The open resources while both caches are in use. A late reply may have opened a spare connection, which is soon
    /// gone.
    async fn rest(&self, server: &Server) -> Open {
        let began = Instant::now();
        loop {
            let before = self.open(server).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            if self.serves().await && self.open(server).await == before {
                return before;
            }
            assert!(began.elapsed() < TIME_TO_REST, "tasks or connections come and go");
        }
    }

    /// The open resources, once their number doesn't change any more.
    async fn open(&self, server: &Server) -> Open {
        loop {
            let before = Handle::current().metrics().num_alive_tasks();
            let connections = server.connections().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            let tasks = Handle::current().metrics().num_alive_tasks();
            if tasks == before {
                return Open { tasks, flights: self.caches.iter().map(proof::flights).sum(), connections };
            }
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
        .load_timeout(WAIT_TIMEOUT)
        .update_timeout(UPDATE_TIMEOUT)
        .build()
        .unwrap()
}

impl Table {
    fn new() -> Self {
        let primary = Primary::default().with_latency(LOADER_LATENCY);
        let record =
            |number| Record { id: format!("p-{number}"), committed: AtomicU32::new(1), floor: AtomicU32::new(1) };
        let records: Vec<_> = (0..RECORDS).map(record).collect();
        records.iter().for_each(|record| primary.put(record.row(1)));
        Self { records, primary, stop: AtomicBool::new(false), seen: Mutex::default(), delays: AtomicU64::new(0) }
    }

    async fn serves(&self, cache: &Cache<Product>) -> bool {
        let lookup = cache.lookup("p-0", self.primary.loader()).await.unwrap();
        lookup.outcome != Outcome::Bypassed && cache.modify("p-0", |_| ()).await.is_ok()
    }

    /// Measures the delays of the machine under this load.
    async fn measure_delays(&self) {
        loop {
            let began = Instant::now();
            tokio::time::sleep(NAP).await;
            let late = began.elapsed().saturating_sub(NAP).as_micros();
            self.delays.fetch_add(u64::try_from(late).unwrap(), Ordering::SeqCst);
        }
    }

    fn delays(&self) -> Duration {
        Duration::from_micros(self.delays.load(Ordering::SeqCst))
    }

    /// How late a call may be that began when the delays were these.
    fn late_since(&self, before: Duration) -> Duration {
        WAKING_UP + (self.delays() - before) * 2
    }

    /// Fails if something took too long.
    async fn check_time(&self, took: Duration, limit: Duration, before: Duration) {
        if took >= limit + self.late_since(before) {
            // Its last delay may not have been measured yet.
            tokio::time::sleep(NAP * 2).await;
        }
        let late = self.late_since(before);
        assert!(took < limit + late, "it took {took:?} of {limit:?}; the machine was late by {late:?}");
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

    /// Gets a record: it has to be whole, no older than versions that had returned before, and to come within the
    /// deadline.
    async fn read(&self, cache: &Cache<Product>, record: &Record) {
        let floor = record.floor.load(Ordering::SeqCst);
        let got = self.timed(READ_LIMIT, cache.lookup(record.id.as_str(), self.primary.loader())).await.unwrap();
        let product = got.value.expect("the primary has it");
        record.check(&product, floor);
        *self.seen.lock().unwrap().outcomes.entry(format!("{:?}", got.outcome)).or_default() += 1;
        let floor = record.floor.load(Ordering::SeqCst);
        match self.timed(OPERATION_TIMEOUT, cache.peek(record.id.as_str())).await {
            Ok(Some(product)) => record.check(&product, floor),
            Err(Error::Timeout { .. }) => self.seen.lock().unwrap().is_unanswered = true,
            _ => {}
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
                0 => self.timed(OPERATION_TIMEOUT, cache.invalidate(record.id.as_str())).await,
                1 => self.applied(self.timed(UPDATE_TIMEOUT, set_all(cache, row)).await),
                _ => {
                    let modify = cache.modify(record.id.as_str(), |product| *product = row.clone());
                    self.applied(self.timed(UPDATE_TIMEOUT, modify).await.map(|stored| stored.is_some()))
                }
            };
            while let Err(error) = written {
                self.count_failed(&error);
                pause().await;
                // The outcome of the first attempt is unknown, so only an invalidation is right now.
                written = self.timed(OPERATION_TIMEOUT, cache.invalidate(record.id.as_str())).await;
            }
            record.floor.store(version, Ordering::SeqCst);
            pause().await;
        }
    }

    /// Waits for a call, which has to end by its deadline.
    async fn timed<R>(&self, limit: Duration, call: impl Future<Output = R>) -> R {
        let (began, before) = (Instant::now(), self.delays());
        let ended = call.await;
        self.check_time(began.elapsed(), limit, before).await;
        ended
    }

    fn count_failed(&self, error: &Error) {
        const LEFT_ALONE: &str = "it has not answered lately";
        let mut seen = self.seen.lock().unwrap();
        match error {
            Error::Backend { advice, .. } if advice.starts_with(LEFT_ALONE) => seen.left_alone += 1,
            Error::Backend { .. } => seen.refused_writes += 1,
            Error::Timeout { .. } => {
                seen.late_writes += 1;
                seen.is_unanswered = true;
            }
            other => panic!("{other:?} is not about the server"),
        }
    }

    fn applied(&self, updated: Result<bool, Error>) -> Result<bool, Error> {
        self.seen.lock().unwrap().applied_updates += u64::from(matches!(updated, Ok(true)));
        updated
    }
}

impl Record {
    /// The row of a version: each field contains the version.
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

async fn pause() {
    let pause = rand::rng().random_range(0..3000);
    tokio::time::sleep(Duration::from_micros(pause)).await;
}
