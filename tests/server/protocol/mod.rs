//! The protocol: what loads, writes and waiting processes do to each other, and the entry as other clients and other
//! releases of a struct see it.

mod cancellation;
mod other_clients;
mod races;
mod schedules;
mod schema;
pub(crate) mod stampede;
