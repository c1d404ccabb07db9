//! What users of a cache see, on the embedded backend and on real servers. `docs/testing.md` says what is tested where.
#![allow(clippy::unwrap_used, missing_docs)]

mod api;
mod near;
mod protocol;
mod resilience;
mod security;
mod support;
