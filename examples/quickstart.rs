//! A first tour of the cache: cold read, warm read, field update, invalidation, a missing id, 100 readers at once,
//! statistics, and the stored entry. A map stands in for the primary database.
//!
//! ```text
//! cargo run --example quickstart                                        # no server needed
//! CACHE_URL=redis://127.0.0.1:6379 cargo run --example quickstart       # the same on Redis or Valkey
//! redis-cli HGETALL cache:billing:product:p-001                         # shows the stored entry
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cache_aside::{Backend, BoxError, Cache, Cacheable, Outcome};
use tokio::sync::Mutex;

#[derive(Debug, Clone, PartialEq, Cacheable)]
#[cacheable(namespace = "billing", entity = "product", ttl = "30s", not_found_ttl = "2s")]
struct Product {
    #[cacheable(id)]
    id: String,
    name: String,
    price_cents: i64,
    stock: u32,
}

/// Stands in for the primary database: a map, as slow as a database across a network.
#[derive(Clone)]
struct Shop {
    products: Arc<Mutex<HashMap<&'static str, Product>>>,
}

impl Shop {
    const LATENCY: Duration = Duration::from_millis(50);

    fn open() -> Self {
        let rows =
            [("p-001", "Sourdough Loaf", 650, 42), ("p-002", "Rye Loaf", 590, 17), ("p-003", "Croissant", 280, 96)];
        let products = rows.map(|(id, name, price_cents, stock)| {
            (id, Product { id: id.to_owned(), name: name.to_owned(), price_cents, stock })
        });
        Self { products: Arc::new(Mutex::new(HashMap::from(products))) }
    }

    async fn find(&self, id: String) -> Result<Option<Product>, BoxError> {
        tokio::time::sleep(Self::LATENCY).await;
        Ok(self.products.lock().await.get(id.as_str()).cloned())
    }

    async fn set_stock(&self, id: &str, stock: u32) {
        if let Some(product) = self.products.lock().await.get_mut(id) {
            product.stock = stock;
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = std::env::var("CACHE_URL").unwrap_or_else(|_| "memory://".to_owned());
    let backend = Backend::connect(&url).await?;
    println!("{backend:?}, with a map as the primary\n");
    let cache: Cache<Product> = Cache::new(backend);
    let shop = Shop::open();
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

    shop.set_stock("p-001", 41).await;
    let began = Instant::now();
    let applied = products.update_field("p-001", Product::FIELDS.stock, 41).await?;
    report("field update", began, &format!("stock = 41 in place, applied: {applied}"));

    let began = Instant::now();
    let updated = products.lookup("p-001").await?;
    report("read", began, &format!("{:?}: {}", updated.outcome, text(updated.value.as_deref())));

    shop.set_stock("p-001", 40).await;
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
