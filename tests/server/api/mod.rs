//! The API: each operation, each setting, ids and URLs, as documented.

mod clear;
mod fields;
mod ids;
mod key_prefix;
mod loads;
mod many;
mod nested;
mod operations;
mod quickstart;
mod redis_cli;
mod refresh;
mod refresh_ahead;
mod revalidate;
mod settings;
mod stale_if_error;
mod updates;
mod urls;
mod values;
