//! `redis+sentinel://`: how the master is found, and followed through failovers.

mod discovery;
mod failover;

use std::time::Duration;

use cache_aside::Backend;
use testkit::server::{Flavor, Server};

const FLAVORS: [Flavor; 2] = [Flavor::Redis70, Flavor::Valkey91];

/// How soon the service works again once there is a new master.
const SOON: Duration = Duration::from_secs(2);

const LIMIT: Duration = Duration::from_secs(20);

async fn connect(url: &str) -> Backend {
    Backend::builder(url).operation_timeout(Duration::from_secs(5)).connect().await.unwrap()
}

async fn stored_at(server: &Server, id: &str) -> bool {
    let mut client = server.client().await;
    redis::cmd("EXISTS").arg(format!("cache:billing:product:{id}")).query_async(&mut client).await.unwrap()
}
