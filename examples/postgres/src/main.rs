//! A typical service: `axum`, PostgreSQL through `sqlx`, and a cache for each entity. Reads go through the caches; a
//! write invalidates the changed entries after its commit.
//!
//! ```sh
//! export DATABASE_URL=postgres://localhost/shop CACHE_URL=redis://127.0.0.1:6379   # or memory://
//! cargo run -p postgres
//! curl localhost:3000/products/1
//! curl localhost:3000/orders -H content-type:application/json -d '{"customer":1,"product":1,"quantity":2}'
//! ```

use std::num::NonZeroU16;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use cache_aside::{Backend, Cache, Cacheable, LoadingCache};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::TaskTracker;

/// Only for the example; a real service has migrations.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS products (id int8 PRIMARY KEY, name text, price_cents int8, stock int4 NOT NULL);
    CREATE TABLE IF NOT EXISTS customers (id int8 PRIMARY KEY, name text, city text, orders int4 NOT NULL);
    INSERT INTO products VALUES (1, 'Sourdough Loaf', 650, 42) ON CONFLICT DO NOTHING;
    INSERT INTO customers VALUES (1, 'Ines', 'Porto', 0) ON CONFLICT DO NOTHING";

#[derive(Debug, Serialize, Cacheable)]
#[cacheable(namespace = "catalog", ttl = "5m", not_found_ttl = "5s")]
struct Product {
    #[cacheable(id)]
    id: i64,
    name: String,
    price_cents: i64,
    stock: i32,
}

#[derive(Debug, Serialize, Cacheable)]
#[cacheable(namespace = "accounts", ttl = "1m", not_found_ttl = "5s")]
struct Customer {
    #[cacheable(id)]
    id: i64,
    name: String,
    city: Option<String>,
    orders: i32,
}

#[derive(Clone, Copy, Deserialize)]
struct Order {
    customer: i64,
    product: i64,
    quantity: NonZeroU16,
}

/// State that all handlers share, cheap to clone. `orders` are the open orders.
#[derive(Clone)]
struct Shop {
    db: PgPool,
    products: LoadingCache<Product>,
    customers: LoadingCache<Customer>,
    orders: TaskTracker,
}

impl Shop {
    fn new(db: PgPool, backend: Backend) -> Self {
        let (of_products, of_customers) = (db.clone(), db.clone());
        let products = Cache::new(backend.clone()).with_loader(move |id| find_product(of_products.clone(), id));
        let customers = Cache::new(backend).with_loader(move |id| find_customer(of_customers.clone(), id));
        Self { db, products, customers, orders: TaskTracker::new() }
    }

    /// Takes the quantity from the stock and counts the order. Returns `false` if the stock is too small, or there is
    /// no such customer.
    async fn order(&self, Order { customer, product, quantity }: Order) -> sqlx::Result<bool> {
        let mut transaction = self.db.begin().await?;
        let take = sqlx::query("UPDATE products SET stock = stock - $2 WHERE id = $1 AND stock >= $2");
        let taken = take.bind(product).bind(i32::from(quantity.get())).execute(&mut *transaction).await?;
        let count = sqlx::query("UPDATE customers SET orders = orders + 1 WHERE id = $1");
        let counted = count.bind(customer).execute(&mut *transaction).await?;
        if taken.rows_affected() == 0 || counted.rows_affected() == 0 {
            transaction.rollback().await?;
            return Ok(false);
        }
        let committed = transaction.commit().await;

        // After the commit, never before: a load in between would put the old row back. Also after a commit that
        // failed: if only its reply was lost, it has been carried out.
        let (product, customer) = tokio::join!(self.products.invalidate(product), self.customers.invalidate(customer));
        for error in [product.err(), customer.err()].into_iter().flatten() {
            // The order is valid, and the library retries the invalidation. Others may get the old row until then, or
            // until its TTL ends.
            eprintln!("{:#}", anyhow::Error::from(error));
        }
        committed.map(|()| true)
    }
}

async fn find_product(db: PgPool, id: i64) -> sqlx::Result<Option<Product>> {
    let find = sqlx::query_as("SELECT name, price_cents, stock FROM products WHERE id = $1").bind(id);
    let found = find.fetch_optional(&db).await?;
    Ok(found.map(|(name, price_cents, stock)| Product { id, name, price_cents, stock }))
}

async fn find_customer(db: PgPool, id: i64) -> sqlx::Result<Option<Customer>> {
    let find = sqlx::query_as("SELECT name, city, orders FROM customers WHERE id = $1").bind(id);
    let found = find.fetch_optional(&db).await?;
    Ok(found.map(|(name, city, orders)| Customer { id, name, city, orders }))
}

async fn product(State(shop): State<Shop>, Path(id): Path<i64>) -> Result<Json<Arc<Product>>, StatusCode> {
    shop.products.get(id).await.map_err(failed)?.map(Json).ok_or(StatusCode::NOT_FOUND)
}

async fn customer(State(shop): State<Shop>, Path(id): Path<i64>) -> Result<Json<Arc<Customer>>, StatusCode> {
    shop.customers.get(id).await.map_err(failed)?.map(Json).ok_or(StatusCode::NOT_FOUND)
}

async fn order(State(shop): State<Shop>, Json(order): Json<Order>) -> Result<StatusCode, StatusCode> {
    // In a task of its own, since a client that hangs up would end this one, perhaps between commit and invalidation.
    let placed = shop.orders.clone().spawn(async move { shop.order(order).await });
    let placed = placed.await.map_err(failed)?.map_err(failed)?;
    Ok(if placed { StatusCode::CREATED } else { StatusCode::CONFLICT })
}

/// The log gets the reason, the client only the status.
fn failed(error: impl Into<anyhow::Error>) -> StatusCode {
    eprintln!("{:#}", error.into());
    StatusCode::INTERNAL_SERVER_ERROR
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let variable = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let db = PgPool::connect(&variable("DATABASE_URL", "postgres://localhost/shop")).await?;
    sqlx::raw_sql(TABLES).execute(&db).await?;
    let cache = Backend::connect_lazy(&variable("CACHE_URL", "memory://"))?;
    let shop = Shop::new(db, cache.clone());
    let routes = Router::new()
        .route("/products/{id}", get(product))
        .route("/customers/{id}", get(customer))
        .route("/orders", post(order))
        .with_state(shop.clone());
    let listener = tokio::net::TcpListener::bind(variable("LISTEN", "127.0.0.1:3000")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let stop = async move { tokio::select!(_ = interrupt.recv() => {}, _ = terminate.recv() => {}) };
    axum::serve(listener, routes).with_graceful_shutdown(stop).await?;
    shop.orders.close();
    shop.orders.wait().await;
    // Applies failed invalidations, which would be lost with the process.
    Ok(cache.close().await?)
}
