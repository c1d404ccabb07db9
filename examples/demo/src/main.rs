//! A page that shows the cache at work: reads, updates, stampedes, races and outages of a small shop, records past their
//! TTL, and a near cache.
//!
//! ```text
//! cargo run -p demo                                              # http://127.0.0.1:8080, no server needed
//! cargo run -p demo -- --cache redis://127.0.0.1:6379            # the same on Redis or Valkey, and the near cache
//! cargo run -p demo -- --help                                    # ports, latency, the database's file
//! ```
//!
//! Read `service.rs` to learn how a service uses the cache. `primary.rs` is the database, SQLite; `experiments.rs` has
//! the stampede and the race; `caches.rs` the near cache's switch; the rest serves the page in `page/`.

mod caches;
mod events;
mod experiments;
mod failure;
mod figures;
mod guard;
mod http;
mod metrics;
mod page;
mod params;
mod primary;
mod service;
mod signals;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cache_aside::{Backend, BoxError};
use clap::Parser;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::guard::Loopback;
use crate::primary::Primary;
use crate::service::Shop;
use crate::signals::Signals;

/// How long requests may go on when the demo stops: longer than one read.
const STOP_LIMIT: Duration = Duration::from_millis(http::MAX_LATENCY_MS + 1000);

/// A page that shows the cache at work
#[derive(Parser)]
#[command(name = "demo")]
struct Options {
    #[arg(long, value_name = "URL", default_value = "memory://", conflicts_with_all = ["redis_host", "redis_port"])]
    #[arg(help = "Where the entries live: memory://, redis://host:port or unix:///path")]
    cache: String,

    #[arg(long, value_name = "HOST", help = "Another way to say redis://HOST:PORT")]
    redis_host: Option<String>,

    /// The port for --redis-host [default: 6379]
    #[arg(long, value_name = "PORT")]
    redis_port: Option<u16>,

    /// The port of the page; 0 for a free one
    #[arg(long, default_value_t = 8080)]
    port: u16,

    /// The address of the page; any address but loopback lets other machines in
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    bind: String,

    /// How long a read of the primary takes
    #[arg(long, value_name = "MS", default_value_t = 150)]
    #[arg(value_parser = clap::value_parser!(u64).range(..=http::MAX_LATENCY_MS))]
    read_latency_ms: u64,

    /// The primary's SQLite file, which is kept; by default a temporary one
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,
}

impl Options {
    fn cache_url(&self) -> String {
        if self.redis_host.is_none() && self.redis_port.is_none() {
            return self.cache.clone();
        }
        let host = unbracketed(self.redis_host.as_deref().unwrap_or("127.0.0.1"));
        let port = self.redis_port.unwrap_or(6379);
        if host.contains(':') { format!("redis://[{host}]:{port}") } else { format!("redis://{host}:{port}") }
    }
}

/// An IPv6 address may have the form that it has in URLs: `[::1]`.
fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {}", failure::chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<(), BoxError> {
    let mut signals = Signals::new()?;
    let listener = TcpListener::bind((unbracketed(&options.bind), options.port)).await.map_err(|error| {
        format!(
            "can't listen on {}, port {}: {error}; choose others with --bind and --port",
            options.bind, options.port
        )
    })?;
    let address = listener.local_addr()?;

    // Removed at the end, with the database in it.
    let folder = tempfile::tempdir()?;
    let file = options.database.clone().unwrap_or_else(|| folder.path().join("shop.sqlite"));
    let primary = Primary::open(&file, Duration::from_millis(options.read_latency_ms))
        .map_err(|error| format!("can't open the database {}: {}", file.display(), failure::chain(&*error)))?;

    // Longer than the default, for machines that are busy building; lazy, because a service also starts without a
    // cache.
    let backend = Backend::builder(&options.cache_url()).operation_timeout(Duration::from_secs(2)).connect_lazy()?;
    let shop = Arc::new(Shop::new(backend.clone(), primary)?);
    let products = shop.primary.all().await?;
    if let Err(error) = shop.forget_earlier_runs(products).await {
        eprintln!("The cache does not answer. Reads go around it until it does: {}", failure::chain(&error));
    }
    say(&format!(
        "The demo is at http://{address}\nCache: {backend}, primary: {}, {} ms a read\nCtrl-C stops it.",
        file.display(),
        options.read_latency_ms
    ));

    let (stop, stopping) = watch::channel(false);
    let router = http::router(shop, Loopback(address.ip().is_loopback()), stopping.clone());
    let server = axum::serve(listener, router).with_graceful_shutdown(stopped(stopping.clone()));
    let told = tokio::spawn(async move {
        signals.asked_to_stop().await;
        stop.send_replace(true);
    });
    tokio::select! {
        served = server.into_future() => served?,
        () = async { stopped(stopping).await; tokio::time::sleep(STOP_LIMIT).await } => {}
    }
    told.await?;
    say("Stopped.");
    Ok(())
}

/// Prints a line, if anyone reads the output.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // It also ends when the sender is dropped, which means to stop as well.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}
