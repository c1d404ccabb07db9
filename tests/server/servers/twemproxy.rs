//! twemproxy, which hangs up on each command that it doesn't forward: `CLIENT`, `INFO`, `ROLE`, `WATCH`, `SCAN` and `HELLO`.

use cache_aside::{Outcome, TrackerState};
use testkit::program::Program;
use testkit::server::{Flavor, Server};

use super::{LIMIT, Works, is_spread_over, is_used, outcome, process, stock};
use crate::support::fixture::{Primary, loaf, until};

const WORKS: Works = Works { updates: false, clear: false, near: TrackerState::Unsupported };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twemproxy_in_front_of_one_server() {
    let server = Server::start(Flavor::Redis70).await;
    let proxy = Program::twemproxy(&[server.port()]).await;
    is_used(&proxy.url(), WORKS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twemproxy_in_front_of_two_servers() {
    let servers = [Server::start(Flavor::Redis70).await, Server::start(Flavor::Valkey91).await];
    let proxy = Program::twemproxy(&[servers[0].port(), servers[1].port()]).await;
    is_spread_over(&proxy.url(), &servers).await;
    is_used(&proxy.url(), WORKS).await;
}

/// The proxy's connections to clients stay, so it answers with an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_behind_twemproxy_is_down_for_a_while() {
    let mut server = Server::start(Flavor::Redis70).await;
    let proxy = Program::twemproxy(&[server.port()]).await;
    let (cache, primary) = (process(&proxy.url()).await, Primary::of(loaf(1)));
    assert_eq!(outcome(&cache, &primary).await, Outcome::Loaded);
    server.kill().await;
    assert_eq!(stock(&cache, &primary).await, 1);
    primary.put(loaf(2));
    println!("{}", cache.invalidate("p-001").await.unwrap_err());
    assert_eq!(stock(&cache, &primary).await, 2);
    server.restart().await;
    until(LIMIT, "the invalidation is not applied", async || cache.pending().is_empty()).await;
    until(LIMIT, "the cache is not used again", async || outcome(&cache, &primary).await == Outcome::Hit).await;
    assert_eq!(stock(&cache, &primary).await, 2);
}
