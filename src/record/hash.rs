//! The fields of a stored hash, and how a derived impl reads and writes them.
//!
//! Knows nothing of keys and backends.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::{Codec, FieldError};

/// One field of a stored hash: its name and its value.
pub(crate) type StoredField = (Cow<'static, [u8]>, Vec<u8>);

/// One field of a hash that was read: its name and its value.
pub(crate) type FoundField = (Bytes, Bytes);

/// A stored hash, as it was read. Its bytes are slices of the reply, or shared with the embedded backend.
#[derive(Debug)]
pub(crate) enum Hash {
    /// All fields, with their names.
    Whole(Arc<Vec<FoundField>>),
    /// Without names: the values of the selected fields, in the order of the selection, and `~meta`.
    Selected { values: Vec<Option<Bytes>>, meta: Option<Bytes> },
}

impl Hash {
    /// `None` if there are no fields.
    pub(crate) fn whole(fields: Vec<FoundField>) -> Option<Self> {
        (!fields.is_empty()).then(|| Self::Whole(Arc::new(fields)))
    }

    /// The last value is `~meta`. `None` if no field exists.
    pub(crate) fn selected(mut values: Vec<Option<Bytes>>) -> Option<Self> {
        let meta = values.pop()?;
        let is_there = meta.is_some() || values.iter().any(Option::is_some);
        is_there.then_some(Self::Selected { values, meta })
    }
}

/// The new values of fields, by name. `None` removes a field from the hash.
pub(crate) type Changes = Vec<(&'static str, Option<Vec<u8>>)>;

/// Collects the encoded fields of a record, in declaration order.
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
/// The search for a field starts where the last one was found, since most hashes keep the declaration order.
#[doc(hidden)]
#[derive(Debug)]
pub struct RecordReader<'a> {
    hash: &'a Hash,
    /// The names of the values of [`Hash::Selected`].
    selected: &'a [&'static str],
    next: usize,
    /// An estimate of the heap memory that the values read so far own, in bytes. `None`: nobody wants to know.
    heap: Option<usize>,
}

impl<'a> RecordReader<'a> {
    pub(crate) fn new(hash: &'a Hash, selected: &'a [&'static str]) -> Self {
        Self { hash, selected, next: 0, heap: None }
    }

    /// Estimates the heap memory of the values from here on.
    pub(crate) fn weighing(self) -> Self {
        Self { heap: Some(0), ..self }
    }

    pub(crate) fn heap(&self) -> usize {
        self.heap.unwrap_or_default()
    }

    /// Reads a field. A missing field has the value that its type or its attribute gives it.
    ///
    /// # Errors
    ///
    /// If the field is missing and has no such value, or if it can't be decoded.
    pub fn read<V>(&mut self, codec: &Codec<V>) -> Result<V, FieldError> {
        match self.take_any(codec) {
            Some(bytes) => {
                if let Some(heap) = &mut self.heap {
                    *heap += codec.heap(bytes);
                }
                codec.decode(Cow::Borrowed(bytes))
            }
            None => codec.missing(),
        }
    }

    /// Finds a field by its own name, or by the first alias that exists.
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

/// The place of the item that `is_it`. Searches from `next` on, and then from the beginning.
fn find<I>(items: &[I], next: &mut usize, mut is_it: impl FnMut(&I) -> bool) -> Option<usize> {
    let at = (*next..items.len()).chain(0..*next).find(|at| is_it(&items[*at]))?;
    *next = at + 1;
    Some(at)
}
