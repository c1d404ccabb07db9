//! Code that the tests of cache-aside share: real servers, and proxies in front of them.
//!
//! Nothing here depends on cache-aside, so its unit tests can use it too. A helper that fails panics, and fails the
//! test.

#![allow(
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "a panic fails the test"
)]

pub mod access;
pub mod cluster;
pub mod fake;
pub mod hosts;
pub mod http;
pub mod process;
pub mod program;
pub mod proxy;
pub mod sentinel;
pub mod server;
