//! A stored entry and what it means: a record, the note that there is none, or something unreadable.
//!
//! Owns the one reserved field, `~meta`. Whatever it holds that this release doesn't understand makes the entry
//! unreadable, and so a miss: later releases may add to it.

use std::borrow::Cow;
use std::sync::Arc;

use crate::cacheable::Cacheable;
use crate::codec::FieldError;
use crate::error::BoxError;
use crate::record::{Changes, RecordReader, RecordWriter, StoredField};

const META: &[u8] = b"~meta";
const ABSENT: &[u8] = b"absent";

/// What a backend found at a data key.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    /// A hash. Shared, so that the embedded backend hands it out without a copy.
    Hash(Arc<Vec<StoredField>>),
    /// A value of another Redis type, put there by somebody else.
    WrongType,
}

/// What an entry means to a reader of `T`.
pub(crate) enum Reading<T> {
    Record(T),
    NotFound,
    Unreadable(BoxError),
}

impl Entry {
    pub(crate) fn read<T: Cacheable>(self) -> Reading<T> {
        let Self::Hash(fields) = self else {
            return Reading::Unreadable("it is not a hash".into());
        };
        if let Some((_, meta)) = fields.iter().find(|(name, _)| **name == *META) {
            return match (meta.as_slice(), fields.len()) {
                (ABSENT, 1) => Reading::NotFound,
                _ => Reading::Unreadable("its `~meta` is of another release".into()),
            };
        }
        let record = match Arc::try_unwrap(fields) {
            Ok(fields) => T::decode(&mut RecordReader::owned(fields)),
            Err(shared) => T::decode(&mut RecordReader::borrowed(&shared)),
        };
        record.map_or_else(|mistake| Reading::Unreadable(mistake.into()), Reading::Record)
    }
}

/// The entry that notes that the primary has no such record.
pub(crate) fn not_found() -> Vec<StoredField> {
    vec![(Cow::Borrowed(META), ABSENT.to_vec())]
}

/// The fields of a record by name, `None` for those that its hash leaves out.
pub(crate) fn fields_of<T: Cacheable>(record: &T) -> Result<Changes, FieldError> {
    let mut writer = RecordWriter::default();
    record.encode(&mut writer);
    writer.finish()
}

/// The hash of a record.
pub(crate) fn encode<T: Cacheable>(record: &T) -> Result<Vec<StoredField>, FieldError> {
    let fields = fields_of(record)?.into_iter();
    Ok(fields.filter_map(|(name, value)| Some((Cow::Borrowed(name.as_bytes()), value?))).collect())
}

/// A hash with its changes carried out.
pub(crate) fn changed(fields: &[StoredField], changes: Changes) -> Vec<StoredField> {
    let mut fields = fields.to_vec();
    for (name, value) in changes {
        fields.retain(|(present, _)| **present != *name.as_bytes());
        fields.extend(value.map(|value| (Cow::Borrowed(name.as_bytes()), value)));
    }
    fields
}

/// How much a hash counts towards `max_entry_bytes`: its names and its values.
pub(crate) fn size(fields: &[StoredField]) -> usize {
    fields.iter().map(|(name, value)| name.len() + value.len()).sum()
}
