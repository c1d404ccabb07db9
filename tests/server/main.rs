//! Tests of a cache's behaviour on the embedded backend and on real servers. `docs/testing.md` says where each test is.
#![allow(clippy::unwrap_used, missing_docs)]

mod api;
mod near;
mod protocol;
mod resilience;
mod security;
mod servers;
mod support;
