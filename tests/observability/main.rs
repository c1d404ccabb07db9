//! What operators see: metrics, spans, and the documents that name them.
#![allow(clippy::unwrap_used, missing_docs)]

mod documents;
#[allow(dead_code, reason = "the servers' own tests use all of it")]
#[path = "../server/harness.rs"]
mod harness;
mod metered;
mod spans;
