//! Runs the Rust code of the pages in `docs/`. It needs `axum`, OpenTelemetry and others. As dev-dependencies of the library itself
//! these would be compiled for its examples too, and the quickstart would take minutes.

#[cfg(doctest)]
#[path = "../src/docs.rs"]
mod docs;
