//! `redis+sentinel://`: how the master is found, and followed through failovers.

mod discovery;
mod failover;

use std::time::Duration;

use cache_aside::{Backend, Cache, Outcome};
use testkit::server::{Flavor, Server};

use crate::support::fixture::{Primary, Product, loaf, lookup};

const FLAVORS: [Flavor; 2] = [Flavor::Redis70, Flavor::Valkey91];

/// How soon the service works again once there is a new master.
const SOON: Duration = Duration::from_secs(2);

const LIMIT: Duration = Duration::from_secs(20);

async fn connect(url: &str) -> Backend {
    Backend::builder(url).operation_timeout(Duration::from_secs(5)).connect().await.unwrap()
}

async fn lives_a_whole_life(cache: &Cache<Product>) {
    let primary = Primary::of(loaf(1));
    assert_eq!(lookup(cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
    assert_eq!(lookup(cache, primary.loader()).await.unwrap().outcome, Outcome::Hit);
    assert!(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());
    assert_eq!(cache.peek("p-001").await.unwrap().as_deref(), Some(&loaf(2)));
    assert!(cache.invalidate("p-001").await.unwrap());
    assert_eq!(cache.peek("p-001").await.unwrap(), None);
}

async fn stored_at(server: &Server, id: &str) -> bool {
    let mut client = server.client().await;
    redis::cmd("EXISTS").arg(format!("cache:billing:product:{id}")).query_async(&mut client).await.unwrap()
}
