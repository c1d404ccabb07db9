//! The API: each operation, each setting, ids and URLs, as documented.

mod clear;
mod fields;
mod ids;
mod loads;
mod many;
mod operations;
mod quickstart;
mod redis_cli;
mod refresh_ahead;
mod settings;
mod stale_if_error;
mod updates;
mod urls;
mod values;
