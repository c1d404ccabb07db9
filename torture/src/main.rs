//! Tortures a cache, and checks every answer. Several processes with many tasks read and write hundreds of rows of a
//! versioned primary, with tiny lifetimes, slow and failing loaders and dropped calls. Each call is recorded. A checker
//! then looks for results that are older than guaranteed by calls which had returned before the call started, newer
//! than the primary, or not whole, and for leases that were granted over a live entry.
//!
//! ```text
//! cargo run --release -p torture -- --seconds 60                           # starts a redis-server itself
//! cargo run --release -p torture -- --server valkey-9.1 --seconds 60       # or redis-8.2
//! cargo run --release -p torture -- --url redis://127.0.0.1:6379 --seconds 600 --processes 3 --writers 2
//! cargo run --release -p torture -- --topology cluster --faults            # or sentinel
//! cargo run --release -p torture -- --near --faults                        # with near caches
//! cargo run --release -p torture -- --url memory:// --processes 1
//! cargo run --release -p torture -- --without recheck                # has to find a violation
//! ```
//!
//! The exit code is 0 if there was no violation, 1 after a violation or if too little happened to prove anything, 2 if
//! the tool could not run, and 130 if it was stopped early.

mod cached;
mod check;
mod clock;
mod conductor;
mod faults;
mod floor;
mod guards;
mod history;
mod judge;
mod link;
mod loader;
mod near;
mod operations;
mod options;
mod primary;
mod progress;
mod row;
mod run;
mod story;
mod summary;
mod wire;
mod worker;

use std::process::ExitCode;

use clap::Parser;

use crate::options::{Options, Part};

/// Violations exit with 1.
const COULD_NOT_RUN: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let ended = match &options.part {
        Some(Part::Worker { socket, process }) => worker::run(socket, *process).await.map(|()| ExitCode::SUCCESS),
        None => conductor::conduct(&options).await,
    };
    ended.unwrap_or_else(|error| {
        eprintln!("torture: {error:#}");
        ExitCode::from(COULD_NOT_RUN)
    })
}
