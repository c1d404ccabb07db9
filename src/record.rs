//! What is stored: a struct's fields as text in a hash, under the key of its id.
//!
//! Knows nothing of backends. `cacheable` is what a struct must be, `codec` converts its records, `value` and `json` one field,
//! and `embed` a struct within it. `entry` has the stored hash, what a read asks for, and what the result means. `id` has the
//! types that can name a record, and `key` the grammar of keys.

mod cacheable;
mod codec;
pub(crate) mod embed;
pub(crate) mod entry;
pub mod features;
pub(crate) mod heap;
mod id;
#[cfg(feature = "json")]
pub(crate) mod json;
mod key;
mod projection;
mod value;

pub use self::cacheable::{Cacheable, Change, Field, Schema};
pub use self::codec::{Codec, FieldError, RecordReader, RecordWriter, id, native, optional_part, or_default};
pub(crate) use self::codec::{Notes, Record, Shape, borrowed, typed};
pub use self::embed::{Embeddable, Part};
pub(crate) use self::entry::{
    ALL, Changes, Entry, Found, FoundField, Hash, META, Meta, Reading, Selection, StoredField,
};
pub use self::id::{CacheId, CacheKey, IdField, IdParts, write_id};
pub(crate) use self::key::{InvalidId, Key, KeySpace, KeysOfType, TypeNames, WriteId, check_key_prefix};
pub use self::projection::Projection;
pub use self::value::{FieldValue, unknown_variant};
