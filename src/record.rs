//! A record on its way in and out of a hash: the fields that a derived impl writes and reads.
//!
//! Knows nothing of keys, backends and the library's own `~meta` field.

use std::borrow::Cow;

use crate::codec::{Codec, FieldError};

/// One field of a stored hash: its name and its value.
pub(crate) type StoredField = (Cow<'static, [u8]>, Vec<u8>);

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

/// Gives out the fields of a stored hash, each once.
///
/// It looks for a field from where the last one was found, since most hashes keep the order of declaration.
#[doc(hidden)]
#[derive(Debug)]
pub struct RecordReader<'a> {
    fields: Fields<'a>,
    next: usize,
}

#[derive(Debug)]
enum Fields<'a> {
    Owned(Vec<StoredField>),
    Borrowed(&'a [StoredField]),
}

impl<'a> RecordReader<'a> {
    pub(crate) fn owned(fields: Vec<StoredField>) -> Self {
        Self { fields: Fields::Owned(fields), next: 0 }
    }

    pub(crate) fn borrowed(fields: &'a [StoredField]) -> Self {
        Self { fields: Fields::Borrowed(fields), next: 0 }
    }

    /// Reads a field that must be there, unless its type has a value for an absent one.
    ///
    /// # Errors
    ///
    /// When it isn't there, or does not decode.
    pub fn required<V>(&mut self, codec: &Codec<V>) -> Result<V, FieldError> {
        match self.take_any(codec) {
            Some(bytes) => codec.decode(bytes),
            None => codec.missing(),
        }
    }

    /// Reads a field that is the type's default when it isn't there.
    ///
    /// # Errors
    ///
    /// When it does not decode.
    pub fn or_default<V: Default>(&mut self, codec: &Codec<V>) -> Result<V, FieldError> {
        match self.take_any(codec) {
            Some(bytes) => codec.decode(bytes),
            None => Ok(V::default()),
        }
    }

    /// Takes a field by its own name, or by the first alias that is there.
    fn take_any<V>(&mut self, codec: &Codec<V>) -> Option<Cow<'a, [u8]>> {
        self.take(codec.name()).or_else(|| codec.other_names().iter().find_map(|alias| self.take(alias)))
    }

    fn take(&mut self, field: &str) -> Option<Cow<'a, [u8]>> {
        let stored = match &self.fields {
            Fields::Owned(fields) => fields.as_slice(),
            Fields::Borrowed(fields) => fields,
        };
        let is_it = |at: &usize| *stored[*at].0 == *field.as_bytes();
        let at = (self.next..stored.len()).chain(0..self.next).find(is_it)?;
        self.next = at + 1;
        Some(match &mut self.fields {
            Fields::Owned(fields) => Cow::Owned(std::mem::take(&mut fields[at].1)),
            Fields::Borrowed(fields) => Cow::Borrowed(&fields[at].1),
        })
    }
}
