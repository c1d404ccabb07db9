//! A record on its way in and out of a hash: the fields that a derived impl writes and reads.
//!
//! Knows nothing of keys, backends and the library's own `~meta` field.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::{Codec, FieldError};

/// One field of a stored hash: its name and its value.
pub(crate) type StoredField = (Cow<'static, [u8]>, Vec<u8>);

/// One field of a hash that was found: its name and its value.
pub(crate) type FoundField = (Bytes, Bytes);

/// What was found of a stored hash. Its bytes are slices of what was received, or shared with the embedded backend.
#[derive(Debug)]
pub(crate) enum Hash {
    /// All fields, with their names.
    Whole(Arc<Vec<FoundField>>),
    /// Without names: the values of the fields that were asked for, in that order, and the library's own field.
    Selected { values: Vec<Option<Bytes>>, meta: Option<Bytes> },
}

impl Hash {
    /// A hash of these fields; `None` if there are none.
    pub(crate) fn whole(fields: Vec<FoundField>) -> Option<Self> {
        (!fields.is_empty()).then(|| Self::Whole(Arc::new(fields)))
    }

    /// The last value is that of the library's own field. `None` if no field exists.
    pub(crate) fn selected(mut values: Vec<Option<Bytes>>) -> Option<Self> {
        let meta = values.pop()?;
        let is_there = meta.is_some() || values.iter().any(Option::is_some);
        is_there.then_some(Self::Selected { values, meta })
    }
}

/// New values of fields by name; `None` for one that is not to be in the hash.
pub(crate) type Changes = Vec<(&'static str, Option<Vec<u8>>)>;

/// Takes the fields of a record, in declaration order.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct RecordWriter {
    fields: Changes,
    mistake: Option<FieldError>,
}

impl RecordWriter {
    /// Writes one field.
    pub fn put<V>(&mut self, codec: &Codec<V>, value: &V) {
        match codec.encode(value) {
            Ok(bytes) => self.fields.push((codec.name(), bytes)),
            Err(mistake) => self.mistake = Some(mistake),
        }
    }

    /// All fields of the record.
    pub(crate) fn finish(self) -> Result<Changes, FieldError> {
        match self.mistake {
            None => Ok(self.fields),
            Some(mistake) => Err(mistake),
        }
    }
}

/// Reads the fields of a stored hash.
///
/// It looks for a field from where the last one was found, since most hashes keep the order of declaration.
#[doc(hidden)]
#[derive(Debug)]
pub struct RecordReader<'a> {
    hash: &'a Hash,
    /// The names that the hash was asked for, if it wasn't asked for all.
    selected: &'a [&'static str],
    next: usize,
    /// An estimate of the heap memory that the values read so far own, in bytes.
    pub(crate) heap: usize,
}

impl<'a> RecordReader<'a> {
    pub(crate) fn new(hash: &'a Hash, selected: &'a [&'static str]) -> Self {
        Self { hash, selected, next: 0, heap: 0 }
    }

    /// Reads a field that must be there, unless its type has a value for an absent one, or its attribute.
    ///
    /// # Errors
    ///
    /// When it isn't there, or does not decode.
    pub fn read<V>(&mut self, codec: &Codec<V>) -> Result<V, FieldError> {
        match self.take_any(codec) {
            Some(bytes) => {
                self.heap += codec.heap(bytes);
                codec.decode(Cow::Borrowed(bytes))
            }
            None => codec.missing(),
        }
    }

    /// Takes a field by its own name, or by the first alias that is there.
    fn take_any<V>(&mut self, codec: &Codec<V>) -> Option<&'a [u8]> {
        self.take(codec.name()).or_else(|| codec.other_names().iter().find_map(|alias| self.take(alias)))
    }

    fn take(&mut self, field: &str) -> Option<&'a [u8]> {
        match self.hash {
            Hash::Whole(fields) => {
                let at = find(fields, &mut self.next, |(name, _)| **name == *field.as_bytes())?;
                Some(&fields[at].1)
            }
            Hash::Selected { values, .. } => {
                values.get(find(self.selected, &mut self.next, |name| *name == field)?)?.as_deref()
            }
        }
    }
}

/// The place of the one that `is_it`, looked for from `next` on, and then from the beginning.
fn find<I>(items: &[I], next: &mut usize, mut is_it: impl FnMut(&I) -> bool) -> Option<usize> {
    let at = (*next..items.len()).chain(0..*next).find(|at| is_it(&items[*at]))?;
    *next = at + 1;
    Some(at)
}
