//! What is stored: a struct's fields as text in a hash, under the key of its id.
//!
//! Knows nothing of backends. `cacheable` is what a struct must be, and `shape` the same without its type, for all that
//! lies below the typed face; `codec` and `value` are one field's name and text form; `hash` is what was found of an
//! entry's fields, and `entry` what it means; `id` and `key` are the key grammar.

pub(crate) mod cacheable;
pub(crate) mod codec;
pub(crate) mod entry;
pub(crate) mod hash;
pub(crate) mod heap;
pub(crate) mod id;
pub(crate) mod key;
pub(crate) mod projection;
pub(crate) mod shape;
pub(crate) mod value;

pub(crate) use self::hash::{Changes, FoundField, Hash, RecordReader, RecordWriter, StoredField};
