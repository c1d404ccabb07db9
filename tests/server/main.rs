//! What users of a cache see, on the embedded backend and on real servers.
#![allow(clippy::unwrap_used, missing_docs)]

mod access;
mod ahead;
mod bad_input;
mod busy;
mod cancellation;
mod cluster;
#[allow(dead_code, reason = "the torture tool needs the rest")]
mod clusters;
mod connection;
mod failover;
mod failures;
mod fake;
mod faults;
mod fields;
mod fixture;
mod harness;
mod hosts;
mod least_access;
mod log;
mod many;
mod names;
mod near;
mod network;
mod operations;
mod other_clients;
mod outages;
mod proxy;
mod quickstart;
mod races;
mod reads;
mod runtimes;
mod schedules;
mod schema;
mod secrets;
#[allow(dead_code, reason = "the torture tool needs the rest")]
mod sentinels;
mod stale;
mod stampede;
mod tls;
mod traffic;
mod updates;
