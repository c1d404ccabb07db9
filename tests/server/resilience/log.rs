//! The log: one line for each cause, not one for each step.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_aside::{Backend, BoxError, Outcome};
use testkit::server::{Flavor, Server};
use tracing::subscriber::DefaultGuard;

use crate::support::fixture::{Primary, Product, builder, connect, loaf, lookup, products};

const GETS: usize = 1_000;
/// One line for each cause, and one for each interval in which it goes on.
const HANDFUL: usize = 8;

/// The warnings and errors of this thread, a line each.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn capture() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::WARN)
            .with_ansi(false)
            .with_writer(move || writer.clone());
        (log, tracing::subscriber::set_default(subscriber.finish()))
    }

    /// Checks that the cause was logged, and not again and again.
    fn is_short(&self) {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        let text = String::from_utf8(bytes).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let shown = &lines[..lines.len().min(HANDFUL)];
        println!("{} lines, which begin with {shown:#?}", lines.len());
        assert!((1..=HANDFUL).contains(&lines.len()), "{} lines, which begin with {shown:#?}", lines.len());
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_server_without_memory_is_logged_once() {
    let settings = ["--maxmemory", "1kb", "--maxmemory-policy", "noeviction"];
    let server = Server::start_with(Flavor::Redis70, &settings).await;
    let cache = products(&connect(&server.url()).await);
    let (log, _capturing) = Log::capture();
    for id in 0..GETS {
        let load = |id: String| async move { Ok::<_, BoxError>(Some(Product { id, ..loaf(1) })) };
        assert_eq!(cache.lookup(id.to_string(), load).await.unwrap().outcome, Outcome::Bypassed);
    }
    log.is_short();
}

/// Refused updates become invalidations.
#[tokio::test]
async fn refused_updates_are_logged_once() {
    const UPDATES: usize = 100;
    let server = Server::start(Flavor::Redis70).await;
    let (cache, mut operator) = (products(&connect(&server.url()).await), server.client().await);
    for id in 0..UPDATES {
        let load = |id: String| async move { Ok::<_, BoxError>(Some(Product { id, ..loaf(1) })) };
        cache.get(id.to_string(), load).await.unwrap();
    }
    for setting in [["maxmemory-policy", "noeviction"], ["maxmemory", "1kb"]] {
        redis::cmd("CONFIG").arg("SET").arg(&setting).exec_async(&mut operator).await.unwrap();
    }
    let (log, _capturing) = Log::capture();
    for id in 0..UPDATES {
        assert!(!cache.update_field(id.to_string(), Product::FIELDS.stock, 7).await.unwrap());
    }
    log.is_short();
}

#[tokio::test]
async fn a_user_that_may_not_read_is_logged_once() {
    let server = Server::start(Flavor::Redis70).await;
    let rules = ["SETUSER", "writer", "on", ">secret", "~*", "+@all", "-hmget", "-hgetall"];
    redis::cmd("ACL").arg(&rules).exec_async(&mut server.client().await).await.unwrap();
    // `connect` would fail.
    let backend = Backend::builder(&server.url().replace("://", "://writer:secret@"));
    let cache = products(&backend.operation_timeout(Duration::from_secs(5)).connect_lazy().unwrap());
    let primary = Primary::of(loaf(1));
    let (log, _capturing) = Log::capture();
    for _ in 0..GETS {
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Bypassed);
    }
    log.is_short();
}

#[tokio::test]
async fn a_record_that_is_too_large_is_logged_once() {
    let server = Server::start(Flavor::Redis70).await;
    let cache = builder(&connect(&server.url()).await).max_entry_bytes(10).build().unwrap();
    let primary = Primary::of(loaf(1));
    let (log, _capturing) = Log::capture();
    for _ in 0..GETS {
        assert_eq!(cache.lookup("p-001", primary.loader()).await.unwrap().outcome, Outcome::Loaded);
    }
    log.is_short();
}

/// Another client writes it again and again.
#[tokio::test]
async fn an_unreadable_entry_is_logged_once() {
    let server = Server::start(Flavor::Redis70).await;
    let cache = products(&connect(&server.url()).await);
    let (primary, mut operator) = (Primary::of(loaf(1)), server.client().await);
    let (log, _capturing) = Log::capture();
    for _ in 0..GETS {
        let spoil = ["cache:billing:product:p-001", "price_cents", "dear"];
        redis::cmd("HSET").arg(&spoil).exec_async(&mut operator).await.unwrap();
        assert_eq!(cache.lookup("p-001", primary.loader()).await.unwrap().outcome, Outcome::Loaded);
    }
    assert!(cache.stats().decode_errors >= GETS as u64);
    log.is_short();
}

#[tokio::test]
async fn closing_without_a_server_is_logged_once() {
    let mut server = Server::start(Flavor::Redis70).await;
    let backend = Backend::connect(&server.url()).await.unwrap();
    let cache = products(&backend);
    cache.get("p-001", Primary::of(loaf(1)).loader()).await.unwrap();
    server.kill().await;
    let (log, _capturing) = Log::capture();
    cache.invalidate("p-001").await.unwrap_err();
    assert!(backend.close().await.unwrap_err().to_string().contains("applying 1 pending"));
    log.is_short();
}
