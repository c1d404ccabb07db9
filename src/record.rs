//! What is stored: a struct's fields as text in a hash, under the key of its id.
//!
//! Knows nothing of backends. `cacheable` is what a struct must be, and `shape` is the same without its type, for
//! everything below the typed face. `codec` and `value` are the name and the text form of one field. `hash` holds the
//! fields that were found of an entry, and `entry` says what they mean. `id` and `key` are the key grammar.

mod cacheable;
mod codec;
pub(crate) mod entry;
mod hash;
pub(crate) mod heap;
mod id;
mod key;
mod projection;
pub(crate) mod shape;
mod value;

pub(crate) use self::cacheable::FieldChange;
pub use self::cacheable::{Cacheable, Change, Field, Schema};
#[cfg(feature = "json")]
pub use self::codec::json;
pub use self::codec::{Codec, FieldError, id, native, or_default};
pub(crate) use self::entry::{Entry, Found, META, Meta, Reading};
pub(crate) use self::hash::{Changes, FoundField, Hash, StoredField};
pub use self::hash::{RecordReader, RecordWriter};
pub use self::id::{CacheId, CacheKey, IdParts};
pub(crate) use self::key::{Key, KeySpace, WriteId};
pub use self::projection::Projection;
pub(crate) use self::shape::{Record, Shape, typed};
pub use self::value::FieldValue;
