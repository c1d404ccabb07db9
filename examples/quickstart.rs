//! A first tour of the cache: cold read, warm read, field update, invalidation, a missing id, 100 readers at once,
//! statistics, and the stored entry. The primary is an SQLite database.
//!
//! ```text
//! cargo run --example quickstart                                        # no server needed
//! CACHE_URL=redis://127.0.0.1:6379 cargo run --example quickstart       # the same on Redis or Valkey
//! redis-cli HGETALL cache:billing:product:p-001                         # shows the stored entry
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cache_aside::{Backend, BoxError, Cache, Cacheable, Outcome};
use rusqlite::{Connection, OptionalExtension};

#[derive(Debug, Clone, PartialEq, Cacheable)]
#[cacheable(namespace = "billing", entity = "product", ttl = "30s", not_found_ttl = "2s")]
struct Product {
    #[cacheable(id)]
    id: String,
    name: String,
    price_cents: i64,
    stock: u32,
}

/// The primary: an SQLite database, as slow as one across a network.
#[derive(Clone)]
struct Shop {
    database: Arc<Mutex<Connection>>,
}

impl Shop {
    const LATENCY: Duration = Duration::from_millis(50);

    fn open() -> Result<Self, BoxError> {
        let database = Connection::open_in_memory()?;
        database.execute_batch(
            "CREATE TABLE product (id TEXT PRIMARY KEY, name TEXT NOT NULL, price_cents INTEGER NOT NULL, stock INTEGER NOT NULL);
             INSERT INTO product VALUES ('p-001', 'Sourdough Loaf', 650, 42), ('p-002', 'Rye Loaf', 590, 17), ('p-003', 'Croissant', 280, 96);",
        )?;
        Ok(Self { database: Arc::new(Mutex::new(database)) })
    }

    async fn find(&self, id: String) -> Result<Option<Product>, BoxError> {
        tokio::time::sleep(Self::LATENCY).await;
        self.with(|database| {
            let query = "SELECT id, name, price_cents, stock FROM product WHERE id = ?1";
            let row = database.query_row(query, [id], |row| {
                Ok(Product { id: row.get(0)?, name: row.get(1)?, price_cents: row.get(2)?, stock: row.get(3)? })
            });
            Ok(row.optional()?)
        })
    }

    fn set_stock(&self, id: &str, stock: u32) -> Result<(), BoxError> {
        self.with(|database| {
            database.execute("UPDATE product SET stock = ?2 WHERE id = ?1", (id, stock))?;
            Ok(())
        })
    }

    fn with<R>(&self, work: impl FnOnce(&Connection) -> Result<R, BoxError>) -> Result<R, BoxError> {
        work(&self.database.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = std::env::var("CACHE_URL").unwrap_or_else(|_| "memory://".to_owned());
    let backend = Backend::connect(&url).await?;
    println!("{backend:?}, primary in SQLite\n");
    let cache: Cache<Product> = Cache::new(backend);
    let shop = Shop::open()?;
    let primary = shop.clone();
    let products = cache.with_loader(move |id| {
        let primary = primary.clone();
        async move { primary.find(id).await }
    });
    products.invalidate_many(["p-001", "p-002", "p-404"]).await;

    let began = Instant::now();
    let cold = products.lookup("p-001").await?;
    report("cold read", began, &format!("{:?}: {}", cold.outcome, text(cold.value.as_deref())));

    let began = Instant::now();
    let warm = products.lookup("p-001").await?;
    report("warm read", began, &format!("{:?}: {}", warm.outcome, text(warm.value.as_deref())));

    shop.set_stock("p-001", 41)?;
    let began = Instant::now();
    let applied = products.update_field("p-001", Product::FIELDS.stock, 41).await?;
    report("field update", began, &format!("stock = 41 in place, applied: {applied}"));

    let began = Instant::now();
    let updated = products.lookup("p-001").await?;
    report("read", began, &format!("{:?}: {}", updated.outcome, text(updated.value.as_deref())));

    shop.set_stock("p-001", 40)?;
    let began = Instant::now();
    let was_there = products.invalidate("p-001").await?;
    report("invalidation", began, &format!("stock = 40 in the primary, an entry was there: {was_there}"));

    let began = Instant::now();
    let reloaded = products.lookup("p-001").await?;
    report("read", began, &format!("{:?}: {}", reloaded.outcome, text(reloaded.value.as_deref())));

    for step in ["missing id", "and again"] {
        let began = Instant::now();
        let missing = products.lookup("p-404").await?;
        report(step, began, &format!("{:?}: {}", missing.outcome, text(missing.value.as_deref())));
    }

    let loads_before = products.stats().loads;
    let began = Instant::now();
    let readers: Vec<_> = (0..100)
        .map(|_| {
            let products = products.clone();
            tokio::spawn(async move { products.lookup("p-002").await })
        })
        .collect();
    let mut loaded = 0;
    for reader in readers {
        loaded += u32::from(reader.await??.outcome == Outcome::Loaded);
    }
    let loads = products.stats().loads - loads_before;
    report("100 readers", began, &format!("{loads} load of a cold key, {} waited for it", 100 - loaded));

    let stats = products.stats();
    println!("\nhit rate {:.0} %, {stats:#?}", stats.hit_rate_pct());
    println!("\n{}", products.inspect("p-001").await?);
    Ok(())
}

fn report(step: &str, began: Instant, what: &str) {
    println!("{step:<13} {:>9.3} ms  {what}", began.elapsed().as_secs_f64() * 1000.0);
}

fn text(product: Option<&Product>) -> String {
    match product {
        Some(Product { id, name, price_cents, stock }) => format!("{id} {name}, {price_cents} cents, {stock} in stock"),
        None => "no such product".to_owned(),
    }
}
