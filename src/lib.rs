#![doc = include_str!("docs/links.md")]
#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backend;
mod background;
mod backoff;
mod cache;
mod counters;
pub mod defaults;
// The package `tests` runs the code of these pages, which needs other crates.
#[cfg(all(doc, not(doctest)))]
pub mod docs;
mod error;
mod metrics;
mod near;
#[doc(hidden)]
pub mod proof;
mod read;
mod record;
mod repeats;
mod stats;
mod write;

// The empty line ends the paragraph: rustdoc appends the text of the macro itself.
/// The trait [`Cacheable`](trait@Cacheable#attributes-of-the-struct) lists its attributes.
///
pub use cache_aside_derive::Cacheable;
pub use cache_aside_derive::{CacheId, Embeddable, FieldValue};

pub use crate::backend::{Backend, BackendBuilder, Credentials};
pub use crate::cache::{
    Cache, CacheBuilder, EntryState, Inspection, Load, Loaded, Loader, LoadingCache, Lookup, OnOutage, Outcome,
    Pending, UpdateTtl, Warmed,
};
pub use crate::error::{BoxError, Cause, Error};
pub use crate::near::{NearCache, Untracked};
pub use crate::record::{CacheId, CacheKey, Cacheable, Change, Embeddable, Field, FieldValue, Projection, Schema};
pub use crate::stats::{Stats, TrackerState};

/// The functions and types that derived code uses. Not part of the public interface.
#[doc(hidden)]
pub mod __private {
    pub use std::borrow::Cow;
    pub use std::vec::Vec;

    pub use crate::BoxError;
    pub use crate::record::embed::{Name, Nowhere, Place, Text, count, flatten, join, mistake_in_names};
    pub use crate::record::features;
    #[cfg(feature = "json")]
    pub use crate::record::json::{json, optional_json};
    pub use crate::record::{
        Codec, FieldError, IdField, IdParts, Part, RecordReader, RecordWriter, id, native, optional_part, or_default,
        unknown_variant, write_id,
    };
}
