//! One get, top to bottom: `get` looks into the near cache and reads the entry. A miss leads or joins the flight of its key
//! (`single_flight`), which acquires the lease, loads and fills (`read_through`, `lease`, `loader`). `many` does the same for
//! many keys, and `batch` loads them in one call. `refresh_ahead` reloads a record before it expires, `refresh` when it is asked
//! to, `revalidate` while its stale one is served. `nested` sees when loads would wait for each other, `pauses` knows which are not to be tried again yet.
//!
//! Nothing here knows the type of a record.

mod batch;
mod get;
mod lease;
mod loader;
mod many;
mod nested;
mod pauses;
mod read_through;
mod refresh;
mod refresh_ahead;
mod revalidate;
mod single_flight;

pub(crate) use self::batch::{Batch, BatchLoader, ErasedId, LoadedOne, ManyLoader};
pub(crate) use self::get::{Answer, Fields, Request};
pub(crate) use self::lease::Orphans;
pub(crate) use self::loader::{Answer as LoaderAnswer, Given, Loaded, Loader, Loading, Terms, erase, erase_record};
pub(crate) use self::many::Asked;
pub(crate) use self::pauses::Pauses;
pub(crate) use self::refresh_ahead::Refreshes;
pub(crate) use self::single_flight::Flights;
