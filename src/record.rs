//! A record on its way in and out of a hash: the fields that a derived impl writes and reads.
//!
//! Knows nothing of keys, backends and the library's own `~meta` field.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use crate::codec::{Codec, FieldError};

/// One field of a stored hash: its name and its value.
pub(crate) type StoredField = (Cow<'static, [u8]>, Vec<u8>);

/// What was found of a stored hash.
#[derive(Debug)]
pub(crate) enum Hash {
    Owned(Vec<StoredField>),
    /// The embedded backend hands it out without a copy.
    Shared(Arc<Vec<StoredField>>),
    /// The same, as slices of what was received.
    Sliced(Vec<(Bytes, Bytes)>),
    /// Without names: the values of those that were asked for, in that order, and the library's own field.
    Selected {
        values: Values,
        meta: Option<Bytes>,
    },
}

/// Values in the order of the names that were asked for.
#[derive(Debug)]
pub(crate) enum Values {
    Owned(Vec<Option<Vec<u8>>>),
    Sliced(Vec<Option<Bytes>>),
}

impl Values {
    /// `None` for one that isn't there.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Option<&[u8]>> {
        let (owned, sliced): (&[Option<Vec<u8>>], &[Option<Bytes>]) = match self {
            Self::Owned(values) => (values, &[]),
            Self::Sliced(values) => (&[], values),
        };
        owned.iter().map(Option::as_deref).chain(sliced.iter().map(Option::as_deref))
    }
}

impl Hash {
    /// Of values, that of the library's own field at the end; nothing where none is there.
    pub(crate) fn selected<V: Into<Bytes>>(
        mut values: Vec<Option<V>>,
        kept: fn(Vec<Option<V>>) -> Values,
    ) -> Option<Self> {
        let meta = values.pop()?.map(V::into);
        let is_there = meta.is_some() || values.iter().any(Option::is_some);
        is_there.then(|| Self::Selected { values: kept(values), meta })
    }

    /// How many bytes its values have, with their names where these were read too.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Sliced(fields) => fields.iter().map(|(name, value)| name.len() + value.len()).sum(),
            Self::Selected { values, .. } => values.iter().flatten().map(<[u8]>::len).sum(),
            hash => hash.fields().into_iter().flatten().map(|(name, value)| name.len() + value.len()).sum(),
        }
    }

    /// The fields, if they are there to stay.
    pub(crate) fn fields(&self) -> Option<&[StoredField]> {
        match self {
            Self::Owned(fields) => Some(fields),
            Self::Shared(fields) => Some(fields),
            Self::Sliced(_) | Self::Selected { .. } => None,
        }
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
    Sliced(&'a [(Bytes, Bytes)]),
    Selected { names: &'a [&'static str], values: Selected<'a> },
}

#[derive(Debug)]
enum Selected<'a> {
    Owned(Vec<Option<Vec<u8>>>),
    Borrowed(&'a [Option<Vec<u8>>]),
    Sliced(&'a [Option<Bytes>]),
}

impl<'a> Selected<'a> {
    fn take(&mut self, at: usize) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::Owned(values) => Some(Cow::Owned(values.get_mut(at)?.take()?)),
            Self::Borrowed(values) => Some(Cow::Borrowed(values.get(at)?.as_ref()?)),
            Self::Sliced(values) => Some(Cow::Borrowed(values.get(at)?.as_ref()?)),
        }
    }
}

impl<'a> RecordReader<'a> {
    /// `selected` are the names that the hash was asked for, if it wasn't asked for all.
    pub(crate) fn new(hash: &'a mut Hash, selected: &'a [&'static str]) -> Self {
        let fields = match hash {
            Hash::Owned(fields) => Fields::Owned(std::mem::take(fields)),
            Hash::Shared(fields) => Fields::Borrowed(fields),
            Hash::Sliced(fields) => Fields::Sliced(fields),
            Hash::Selected { values, .. } => {
                let values = match values {
                    Values::Owned(values) => Selected::Owned(std::mem::take(values)),
                    Values::Sliced(values) => Selected::Sliced(values),
                };
                Fields::Selected { names: selected, values }
            }
        };
        Self { fields, next: 0 }
    }

    /// The same for fields that may be read several times.
    pub(crate) fn borrowing(hash: &'a mut Hash, selected: &'a [&'static str]) -> Self {
        match hash {
            Hash::Owned(fields) => Self { fields: Fields::Borrowed(fields), next: 0 },
            Hash::Selected { values: Values::Owned(values), .. } => {
                Self { fields: Fields::Selected { names: selected, values: Selected::Borrowed(values) }, next: 0 }
            }
            hash => Self::new(hash, selected),
        }
    }

    /// Reads a field that must be there, unless its type has a value for an absent one, or its attribute.
    ///
    /// # Errors
    ///
    /// When it isn't there, or does not decode.
    pub fn read<V>(&mut self, codec: &Codec<V>) -> Result<V, FieldError> {
        match self.take_any(codec) {
            Some(bytes) => codec.decode(bytes),
            None => codec.missing(),
        }
    }

    /// Takes a field by its own name, or by the first alias that is there.
    fn take_any<V>(&mut self, codec: &Codec<V>) -> Option<Cow<'a, [u8]>> {
        self.take(codec.name()).or_else(|| codec.other_names().iter().find_map(|alias| self.take(alias)))
    }

    fn take(&mut self, field: &str) -> Option<Cow<'a, [u8]>> {
        let found = match &self.fields {
            Fields::Owned(fields) => find(fields, self.next, |(name, _)| **name == *field.as_bytes()),
            Fields::Borrowed(fields) => find(fields, self.next, |(name, _)| **name == *field.as_bytes()),
            Fields::Sliced(fields) => find(fields, self.next, |(name, _)| **name == *field.as_bytes()),
            Fields::Selected { names, .. } => find(names, self.next, |name| *name == field),
        };
        let at = found?;
        self.next = at + 1;
        match &mut self.fields {
            Fields::Owned(fields) => Some(Cow::Owned(std::mem::take(&mut fields[at].1))),
            Fields::Borrowed(fields) => Some(Cow::Borrowed(&fields[at].1)),
            Fields::Sliced(fields) => Some(Cow::Borrowed(&fields[at].1)),
            Fields::Selected { values, .. } => values.take(at),
        }
    }
}

/// The place of the one that `is_it`, looked for from `from` on, and then from the beginning.
fn find<I>(items: &[I], from: usize, mut is_it: impl FnMut(&I) -> bool) -> Option<usize> {
    (from..items.len()).chain(0..from).find(|at| is_it(&items[*at]))
}
