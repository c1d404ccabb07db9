//! The behaviour of a cache while servers, networks, runtimes and machines fail or are busy.

mod announced;
mod busy;
mod cluster;
mod connection;
mod faults;
mod log;
mod moving;
mod names;
mod outages;
mod pending;
mod replicas;
mod runtimes;
mod sentinel;
mod takeover;
