//! The demo, as its users meet it: its endpoints over plain HTTP, and its page in a real browser.
#![allow(clippy::unwrap_used, missing_docs)]

mod browser;
mod endpoints;
#[path = "../shared/example.rs"]
mod example;
mod guards;
#[allow(dead_code, reason = "the servers' own tests use all of it")]
#[path = "../server/harness.rs"]
mod harness;
#[path = "../shared/http.rs"]
mod http;
mod page;
mod program;
mod running;
