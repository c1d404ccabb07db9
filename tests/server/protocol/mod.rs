//! The protocol: how loads, writes and waiting processes affect each other, and how other clients and other releases of
//! a struct see the entry.

mod cancellation;
mod fleet;
mod old_processes;
mod other_clients;
mod races;
mod schedules;
mod schema;
pub(crate) mod stampede;
