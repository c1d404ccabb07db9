//! Metrics, spans, and the documents that name them.
#![allow(clippy::unwrap_used, missing_docs)]

mod documents;
mod metered;
mod spans;
mod texts;
