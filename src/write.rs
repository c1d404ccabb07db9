//! Writes: `invalidate` deletes the entry of a record, `update` changes it in place.
//!
//! Both revoke the lease of a load that is under way, and remove this process' own flight from the map, so that later gets
//! don't join it.

mod invalidate;
mod update;
