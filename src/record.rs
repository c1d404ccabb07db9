//! What is stored: a struct's fields as text in a hash, under the key of its id.
//!
//! Knows nothing of backends. `cacheable` is what a struct must be, `codec` converts its records, and `value` one field.
//! `entry` has the stored hash, what a read asks for, and what the result means. `key` has ids and the key grammar.

mod cacheable;
mod codec;
pub(crate) mod entry;
pub(crate) mod heap;
mod key;
mod projection;
mod value;

pub(crate) use self::cacheable::FieldChange;
pub use self::cacheable::{Cacheable, Change, Field, Schema};
#[cfg(feature = "json")]
pub use self::codec::json;
pub use self::codec::{Codec, FieldError, RecordReader, RecordWriter, id, native, or_default};
pub(crate) use self::codec::{Record, Shape, borrowed, typed};
pub(crate) use self::entry::{
    ALL, Changes, Entry, Found, FoundField, Hash, META, Meta, Reading, Selection, StoredField,
};
pub use self::key::{CacheId, CacheKey, IdParts};
pub(crate) use self::key::{Key, KeySpace, WriteId};
pub use self::projection::Projection;
pub use self::value::FieldValue;
