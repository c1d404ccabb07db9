#![doc = include_str!("../README.md")]

mod backend;
mod background;
mod batch;
mod cache;
mod cacheable;
mod codec;
pub mod defaults;
mod entry;
mod error;
mod flight;
mod id;
mod key;
mod lease;
mod load;
mod meter;
mod near;
mod pause;
mod projection;
#[doc(hidden)]
pub mod proof;
mod record;
mod refresh;
mod repeats;
mod spans;
mod spread;
mod stats;
mod value;

pub use cache_aside_derive::{CacheId, Cacheable};

pub use crate::backend::{Backend, BackendBuilder};
pub use crate::cache::{
    Cache, CacheBuilder, EntryState, Inspection, LoadingCache, Lookup, OnOutage, Outcome, Pending, UpdateTtl,
};
pub use crate::cacheable::{Cacheable, Change, Field, Schema};
pub use crate::error::{BoxError, Cause, Error};
pub use crate::id::{CacheId, CacheKey};
pub use crate::near::{NearCache, Untracked};
pub use crate::projection::Projection;
pub use crate::stats::{Stats, TrackerState};
pub use crate::value::FieldValue;

/// What derived code calls. Not part of the public interface.
#[doc(hidden)]
pub mod __private {
    pub use std::borrow::Cow;
    pub use std::vec::Vec;

    pub use crate::BoxError;
    #[cfg(feature = "json")]
    pub use crate::codec::json;
    pub use crate::codec::{Codec, FieldError, id, native, or_default};
    pub use crate::record::{RecordReader, RecordWriter};
}
