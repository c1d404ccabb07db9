//! The primary: products in an SQLite file, as slow as a database across a network.
//!
//! Owns the file, the artificial latency and failures, and the count of reads. Only [`Primary::find`], which a cache's
//! loader calls, is slow, may be made to fail, and is counted; the shop's own queries are not. Knows nothing of the cache.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cache_aside::{BoxError, Cacheable};
use rusqlite::{Connection, OptionalExtension, Row};
use serde::Serialize;

#[derive(Debug, Clone, PartialEq, Cacheable, Serialize)]
#[cacheable(namespace = "demo", ttl = "30s", not_found_ttl = "10s")]
#[cacheable(stale_while_revalidate = "5m", soft_timeout = "200ms")]
pub(crate) struct Product {
    #[cacheable(id)]
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) price_cents: i64,
    pub(crate) stock: u32,
}

/// A new value for one field of a product.
#[derive(Debug, Clone)]
pub(crate) enum Edit {
    Name(String),
    PriceCents(i64),
    Stock(u32),
}

/// Cheap to clone; all clones share the database.
#[derive(Clone)]
pub(crate) struct Primary {
    shared: Arc<Shared>,
}

struct Shared {
    database: Mutex<Connection>,
    latency_ms: AtomicU64,
    fails: AtomicBool,
    reads: AtomicU64,
    read_micros: AtomicU64,
}

impl Primary {
    /// Opens the database file, and inserts missing products.
    pub(crate) fn open(file: &Path, latency: Duration) -> Result<Self, BoxError> {
        let database = Connection::open(file)?;
        database.execute_batch(include_str!("products.sql"))?;
        let primary = Self {
            shared: Arc::new(Shared {
                database: Mutex::new(database),
                latency_ms: AtomicU64::new(0),
                fails: AtomicBool::new(false),
                reads: AtomicU64::new(0),
                read_micros: AtomicU64::new(0),
            }),
        };
        primary.set_latency(latency);
        Ok(primary)
    }

    /// Reads one product, slowly.
    pub(crate) async fn find(&self, id: String) -> Result<Option<Product>, BoxError> {
        let began = Instant::now();
        let found = self.find_at_once(id).await;
        tokio::time::sleep(self.latency()).await;
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.shared.reads.fetch_add(1, Ordering::Relaxed);
        self.shared.read_micros.fetch_add(took, Ordering::Relaxed);
        if self.fails() { Err("the primary was made to fail".into()) } else { found }
    }

    pub(crate) async fn find_at_once(&self, id: String) -> Result<Option<Product>, BoxError> {
        self.with(move |database| {
            let query = "SELECT id, name, price_cents, stock FROM product WHERE id = ?1";
            Ok(database.query_row(query, [id], product).optional()?)
        })
        .await
    }

    pub(crate) async fn all(&self) -> Result<Vec<Product>, BoxError> {
        let query = "SELECT id, name, price_cents, stock FROM product ORDER BY id";
        self.with(|database| Ok(database.prepare(query)?.query_map([], product)?.collect::<Result<_, _>>()?)).await
    }

    pub(crate) async fn contains(&self, id: &str) -> Result<bool, BoxError> {
        let id = id.to_owned();
        self.with(|database| Ok(database.prepare("SELECT 1 FROM product WHERE id = ?1")?.exists([id])?)).await
    }

    /// Sets one field and commits. Returns `false` if there is no such product.
    pub(crate) async fn update(&self, id: &str, edit: Edit) -> Result<bool, BoxError> {
        let id = id.to_owned();
        self.with(move |database| {
            let rows = match edit {
                Edit::Name(name) => database.execute("UPDATE product SET name = ?2 WHERE id = ?1", (id, name))?,
                Edit::PriceCents(cents) => {
                    database.execute("UPDATE product SET price_cents = ?2 WHERE id = ?1", (id, cents))?
                }
                Edit::Stock(stock) => database.execute("UPDATE product SET stock = ?2 WHERE id = ?1", (id, stock))?,
            };
            Ok(rows > 0)
        })
        .await
    }

    /// Inserts a product and commits. Returns `false` if the id is taken.
    pub(crate) async fn create(&self, product: Product) -> Result<bool, BoxError> {
        self.with(move |database| {
            let Product { id, name, price_cents, stock } = product;
            let insert = "INSERT INTO product VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
            Ok(database.execute(insert, (id, name, price_cents, stock))? > 0)
        })
        .await
    }

    pub(crate) fn latency(&self) -> Duration {
        Duration::from_millis(self.shared.latency_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn set_latency(&self, latency: Duration) {
        let latency_ms = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
        self.shared.latency_ms.store(latency_ms, Ordering::Relaxed);
    }

    pub(crate) fn fails(&self) -> bool {
        self.shared.fails.load(Ordering::Relaxed)
    }

    pub(crate) fn set_fails(&self, fails: bool) {
        self.shared.fails.store(fails, Ordering::Relaxed);
    }

    /// The number of reads by [`find`](Self::find) since the last reset.
    pub(crate) fn reads(&self) -> u64 {
        self.shared.reads.load(Ordering::Relaxed)
    }

    /// The mean duration of a read, as measured; before the first read, the configured latency.
    pub(crate) fn read_latency(&self) -> Duration {
        let micros = self.shared.read_micros.load(Ordering::Relaxed).checked_div(self.reads());
        micros.map_or_else(|| self.latency(), Duration::from_micros)
    }

    pub(crate) fn reset(&self) {
        self.shared.reads.store(0, Ordering::Relaxed);
        self.shared.read_micros.store(0, Ordering::Relaxed);
    }

    /// SQLite blocks, so it runs on a thread for blocking calls.
    async fn with<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<R, BoxError> + Send + 'static,
    ) -> Result<R, BoxError> {
        let shared = self.shared.clone();
        tokio::task::spawn_blocking(move || work(&shared.database.lock().unwrap_or_else(PoisonError::into_inner)))
            .await?
    }
}

fn product(row: &Row<'_>) -> rusqlite::Result<Product> {
    Ok(Product { id: row.get(0)?, name: row.get(1)?, price_cents: row.get(2)?, stock: row.get(3)? })
}
