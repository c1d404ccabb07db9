//! What users of a cache see, on the embedded backend and on real servers.
#![allow(clippy::unwrap_used, missing_docs)]

mod access;
mod bad_input;
mod cancellation;
mod cluster;
mod clusters;
mod failures;
mod faults;
mod fixture;
mod harness;
mod least_access;
mod network;
mod operations;
mod other_clients;
mod outages;
mod proxy;
mod quickstart;
mod races;
mod schedules;
mod schema;
mod secrets;
mod stale;
mod stampede;
mod tls;
mod traffic;
mod updates;
