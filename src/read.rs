//! One get, top to bottom: `get` looks into the near cache and reads the entry; a miss leads or joins the flight of its key
//! (`single_flight`), which acquires the lease, loads and fills (`read_through`, `lease`, `loader`). `many` does the same for
//! many keys, whose loads `batch` brings together, and `refresh_ahead` loads before a record expires. `peek` only looks.
//!
//! Nothing here knows the type of a record.

mod batch;
mod get;
mod lease;
mod loader;
mod many;
mod peek;
mod read_through;
mod refresh_ahead;
mod single_flight;

pub(crate) use self::batch::{Batch, ErasedId};
pub(crate) use self::get::{Answer, Fields, Options, Request};
pub(crate) use self::lease::Orphans;
pub(crate) use self::loader::{Loader, Loading, erase};
pub(crate) use self::many::{Asked, Ids};
pub(crate) use self::refresh_ahead::Refreshes;
pub(crate) use self::single_flight::Flights;
