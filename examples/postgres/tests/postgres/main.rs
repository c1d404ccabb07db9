//! The service as its users see it: over HTTP, on a real PostgreSQL, with the cache in memory and on Redis.
#![allow(clippy::unwrap_used, missing_docs)]

mod server;
mod service;

use std::time::Instant;

use serde_json::json;
use testkit::http::LIMIT;
use testkit::server::{Flavor, Server};
use tokio::time::sleep;

use crate::server::{POLL, Postgres};
use crate::service::Service;

const ENTRIES: [&str; 2] = ["cache:accounts:customer:1", "cache:catalog:product:1"];

/// Runs a test with the cache in memory and on a server.
async fn on_every_cache(test: impl AsyncFn(&Postgres, &Service)) {
    let redis = Server::start(Flavor::Redis70).await;
    for cache in ["memory://", &redis.url()] {
        println!("on {cache}");
        let postgres = Postgres::start().await;
        test(&postgres, &Service::start(&postgres, cache)).await;
    }
}

#[tokio::test]
async fn reads_come_from_the_cache() {
    on_every_cache(async |postgres, service| {
        let product = json!({"id": 1, "name": "Sourdough Loaf", "price_cents": 650, "stock": 42});
        let customer = json!({"id": 1, "name": "Ines", "city": "Porto", "orders": 0});
        assert_eq!(
            (service.get("/products/1").ok(), service.get("/customers/1").ok()),
            (product.clone(), customer.clone())
        );
        // Reads don't see writes that bypass the service until the TTL ends.
        postgres.execute("UPDATE products SET stock = 0; UPDATE customers SET city = NULL").await;
        assert_eq!((service.get("/products/1").ok(), service.get("/customers/1").ok()), (product, customer));
        assert_eq!(service.get("/products/2").status, 404);
        assert_eq!(service.get("/customers/2").status, 404);
        assert_eq!(service.get("/products/x").status, 400);
    })
    .await;
}

#[tokio::test]
async fn an_order_is_seen_by_the_next_read() {
    on_every_cache(async |_, service| {
        for orders in 1..=3 {
            service.get("/products/1").ok();
            service.get("/customers/1").ok();
            assert_eq!(service.order(1, 1, 2), 201);
            assert_eq!(service.get("/products/1").ok()["stock"], 42 - 2 * orders);
            assert_eq!(service.get("/customers/1").ok()["orders"], orders);
        }
    })
    .await;
}

#[tokio::test]
async fn an_order_that_is_refused_changes_nothing() {
    on_every_cache(async |postgres, service| {
        let before = (service.get("/products/1").ok(), service.get("/customers/1").ok());
        for (customer, product, quantity) in [(1, 1, 43), (1, 2, 1), (2, 1, 1)] {
            assert_eq!(service.order(customer, product, quantity), 409);
        }
        for quantity in [0, -1, 65_536] {
            assert_eq!(service.order(1, 1, quantity), 422);
        }
        assert_eq!(service.post("/orders", "{").status, 400);
        assert_eq!((service.get("/products/1").ok(), service.get("/customers/1").ok()), before);
        assert_eq!(postgres.number("SELECT stock FROM products WHERE id = 1").await, 42);
        assert_eq!(postgres.number("SELECT orders FROM customers WHERE id = 1").await, 0);
    })
    .await;
}

#[tokio::test]
async fn orders_at_the_same_time_sell_what_there_is() {
    on_every_cache(async |postgres, service| {
        postgres.execute("UPDATE products SET stock = 10").await;
        let sold = std::thread::scope(|scope| {
            let orders: Vec<_> = (0..20).map(|_| scope.spawn(|| service.order(1, 1, 1))).collect();
            let reads: Vec<_> = (0..20).map(|_| scope.spawn(|| service.get("/products/1").ok())).collect();
            reads.into_iter().for_each(|read| drop(read.join().unwrap()));
            orders.into_iter().map(|order| order.join().unwrap()).filter(|status| *status == 201).count()
        });
        assert_eq!(sold, 10);
        assert_eq!(service.get("/products/1").ok()["stock"], 0);
        assert_eq!(service.get("/customers/1").ok()["orders"], 10);
    })
    .await;
}

/// Makes each commit of an order take two seconds.
const SLOW_COMMITS: &str = "
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(2); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON products
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()";

#[tokio::test]
async fn reads_during_the_commit_leave_no_old_row() {
    on_every_cache(async |postgres, service| {
        postgres.execute(SLOW_COMMITS).await;
        std::thread::scope(|scope| {
            let order = scope.spawn(|| service.order(1, 1, 2));
            while !order.is_finished() {
                service.get("/products/1").ok();
                service.get("/customers/1").ok();
            }
            assert_eq!(order.join().unwrap(), 201);
        });
        assert_eq!(service.get("/products/1").ok()["stock"], 40);
        assert_eq!(service.get("/customers/1").ok()["orders"], 1);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_no_old_row() {
    on_every_cache(async |postgres, service| {
        postgres.execute(SLOW_COMMITS).await;
        let begun = Instant::now();
        let client = service.begin_order(1, 1, 2);
        postgres.commit_begins().await;
        drop(client);
        while postgres.number("SELECT stock FROM products WHERE id = 1").await != 40 {
            service.get("/products/1").ok();
            assert!(begun.elapsed() < LIMIT, "the order was not carried out");
            sleep(POLL).await;
        }
        while service.get("/products/1").ok()["stock"] != 40 {
            assert!(begun.elapsed() < LIMIT, "the old row stays");
            sleep(POLL).await;
        }
    })
    .await;
}

#[tokio::test]
async fn goes_on_without_its_cache() {
    let (postgres, mut redis) = (Postgres::start().await, Server::start(Flavor::Redis70).await);
    let service = Service::start(&postgres, &redis.url());
    service.get("/products/1").ok();
    service.get("/customers/1").ok();
    let mut client = redis.client().await;
    let stored: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut client).await.unwrap();
    let mut stored: Vec<_> = stored.iter().map(String::as_str).collect();
    stored.sort_unstable();
    assert_eq!(stored, ENTRIES);

    redis.kill().await;
    assert_eq!(service.get("/products/1").ok()["stock"], 42);
    // The order is valid: an error would make people order twice.
    assert_eq!(service.order(1, 1, 2), 201);
    assert_eq!(service.get("/products/1").ok()["stock"], 40);

    redis.restart().await;
    let begun = Instant::now();
    let mut client = redis.client().await;
    loop {
        assert_eq!(service.get("/products/1").ok()["stock"], 40);
        let stored: Option<String> =
            redis::cmd("HGET").arg("cache:catalog:product:1").arg("stock").query_async(&mut client).await.unwrap();
        if stored.as_deref() == Some("40") {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "the cache is not used again");
        sleep(POLL).await;
    }
}

#[tokio::test]
async fn stopping_waits_for_orders_whose_client_is_gone() {
    let (postgres, redis) = (Postgres::start().await, Server::start(Flavor::Redis70).await);
    let mut service = Service::start(&postgres, &redis.url());
    service.get("/products/1").ok();
    postgres.execute(SLOW_COMMITS).await;
    let client = service.begin_order(1, 1, 2);
    postgres.commit_begins().await;
    drop(client);
    service.stop().await;
    assert_eq!(postgres.number("SELECT stock FROM products WHERE id = 1").await, 40);
    let mut client = redis.client().await;
    let stored: bool = redis::cmd("EXISTS").arg("cache:catalog:product:1").query_async(&mut client).await.unwrap();
    assert!(!stored, "the order's invalidation is lost");
}

#[tokio::test]
async fn stopping_applies_pending_invalidations() {
    let (postgres, redis) = (Postgres::start().await, Server::start(Flavor::Redis70).await);
    let mut service = Service::start(&postgres, &redis.url());
    service.get("/products/1").ok();
    service.get("/customers/1").ok();
    // A replica keeps its entries, and refuses writes.
    let mut client = redis.client().await;
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).exec_async(&mut client).await.unwrap();
    assert_eq!(service.order(1, 1, 2), 201);
    let stored: u8 = redis::cmd("EXISTS").arg(&ENTRIES).query_async(&mut client).await.unwrap();
    assert_eq!(stored, 2, "the invalidations were to fail");

    service.terminate();
    // Enough time to end for a service that does not wait.
    sleep(POLL * 10).await;
    redis::cmd("REPLICAOF").arg("NO").arg("ONE").exec_async(&mut client).await.unwrap();
    service.ended().await;
    let stored: u8 = redis::cmd("EXISTS").arg(&ENTRIES).query_async(&mut client).await.unwrap();
    assert_eq!(stored, 0, "the old rows stay");
}

#[tokio::test]
async fn clients_do_not_see_database_errors() {
    let postgres = Postgres::start().await;
    let service = Service::start(&postgres, "memory://");
    postgres.execute("DROP TABLE products").await;
    for answer in [service.get("/products/1"), service.post("/orders", r#"{"customer":1,"product":1,"quantity":1}"#)] {
        assert_eq!((answer.status, answer.body.as_str()), (500, ""));
    }
}
