//! Writes: `invalidate` deletes what is stored of a record, `update` changes it in place.
//!
//! Both revoke the lease of a load that is under way, and take this process' own flight out of the way of later gets.

mod invalidate;
mod update;
