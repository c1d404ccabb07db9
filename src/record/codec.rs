//! How records are converted: a field by its [`Codec`], a record by its struct's [`Shape`].
//!
//! Everything below the typed face is compiled once, in this crate: it handles the records of all structs as a [`Record`], by
//! the struct's shape.
//!
//! The attributes of a field choose its codec: [`native`] without any, [`id`] for `id`, `json` for `json`, [`optional_part`] for
//! `embed` on an `Option`, and for `with` the derive generates the functions. A codec is a value, not a type with bounds. So the
//! compiler checks the field's type in one place, where the codec is made, and reports a type that doesn't fit once, at that type.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::{CacheKey, Cacheable, Changes, FieldValue, Hash, IdField, IdParts, Part, Schema, heap};
use crate::error::BoxError;

/// The name of one field in the hash, and the functions that convert its values of type `V`.
#[doc(hidden)]
#[derive(Debug)]
pub struct Codec<V> {
    pub(super) name: &'static str,
    /// The other names to read it from, in this order.
    pub(super) aliases: &'static [&'static str],
    /// A value of several fields, which are read and written as a whole. It needs nothing else here but the name.
    pub(super) part: Option<Part<V>>,
    encode: fn(&V) -> Result<Option<Vec<u8>>, BoxError>,
    decode: fn(Cow<'_, [u8]>) -> Result<V, BoxError>,
    missing: fn() -> Option<V>,
    /// The value of a missing field with `#[cacheable(default)]`.
    default: Option<fn() -> V>,
    /// Writes a part of an id.
    write_id: fn(&V, &mut dyn IdParts) -> fmt::Result,
    /// An estimate of the heap memory that a value of this text owns, in bytes.
    heap: fn(&[u8]) -> usize,
    /// Whether this is a text that only the variant `other` of an enum stands for.
    is_other: fn(&[u8]) -> bool,
    /// The number of values that are stored as an absent field.
    absent_values: u8,
    /// Whether a text must decode before it may be stored: a user's own functions may not be each other's inverse.
    tries_texts: bool,
}

impl<V> Codec<V> {
    /// Makes a codec of these functions, for a field that must be in the hash.
    pub const fn with(
        name: &'static str,
        encode: fn(&V) -> Result<Option<Vec<u8>>, BoxError>,
        decode: fn(Cow<'_, [u8]>) -> Result<V, BoxError>,
    ) -> Self {
        Self {
            name,
            aliases: &[],
            part: None,
            encode,
            decode,
            missing: || None,
            default: None,
            write_id: no_id,
            // A type without drop glue owns no heap memory.
            heap: if std::mem::needs_drop::<V>() { heap::of_bytes } else { |_| 0 },
            is_other: |_| false,
            absent_values: 0,
            tries_texts: false,
        }
    }

    /// Estimates the memory of a value in another way.
    #[cfg(feature = "json")]
    pub(super) const fn heap(mut self, heap: fn(&[u8]) -> usize) -> Self {
        self.heap = heap;
        self
    }

    /// Stores only texts that decode.
    pub const fn trying_texts(mut self) -> Self {
        self.tries_texts = true;
        self
    }

    /// The same codec for a field of this name.
    pub const fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// Also reads the field from these names, in this order.
    pub const fn aliases(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// Encodes a value; `None` leaves the field out of the hash.
    pub(crate) fn encode(&self, value: &V) -> Result<Option<Vec<u8>>, FieldError> {
        let text = (self.encode)(value).map_err(|source| self.error(source))?;
        match &text {
            None if (self.missing)().is_none() => return Err(self.error("this value can't be stored".into())),
            Some(text) if self.tries_texts => {
                let tried = (self.decode)(Cow::Borrowed(text));
                tried.map_err(|cause| self.error(format!("its text does not decode again: {cause}").into()))?;
            }
            _ => {}
        }
        Ok(text)
    }

    pub(crate) fn decode(&self, bytes: Cow<'_, [u8]>) -> Result<V, FieldError> {
        (self.decode)(bytes).map_err(|source| self.error(source))
    }

    /// Writes a part of an id.
    ///
    /// # Errors
    ///
    /// An error of `out`, or of the id itself.
    pub fn write_id(&self, value: &V, out: &mut dyn IdParts) -> fmt::Result {
        (self.write_id)(value, out)
    }

    /// The value of a field that is not in the hash.
    pub(crate) fn missing(&self) -> Result<V, FieldError> {
        // First what the type itself stores as an absent field: its default may be another value.
        let value = (self.missing)().or_else(|| self.default.map(|default| default()));
        value.ok_or_else(|| self.error("it is not in the hash".into()))
    }

    /// Whether the field is in the hash whatever its value.
    pub const fn is_always_stored(&self) -> bool {
        self.absent_values == 0
    }

    /// Whether several values are stored as an absent field.
    pub const fn is_ambiguous(&self) -> bool {
        self.absent_values > 1
    }

    /// The value's [`FieldValue::ABSENT_VALUES`], for a newtype around it.
    pub const fn absent_values(&self) -> u8 {
        self.absent_values
    }

    /// The value's `try_encode`, for a newtype around it.
    ///
    /// # Errors
    ///
    /// If the value can't be stored.
    pub fn encode_wrapped(&self, value: &V) -> Result<Option<Vec<u8>>, BoxError> {
        (self.encode)(value)
    }

    /// The value's [`FieldValue::decode`], for a newtype around it.
    ///
    /// # Errors
    ///
    /// Those of the value.
    pub fn decode_wrapped(&self, bytes: Cow<'_, [u8]>) -> Result<V, BoxError> {
        (self.decode)(bytes)
    }

    /// The value's [`FieldValue::missing`], for a newtype around it.
    pub fn missing_wrapped(&self) -> Option<V> {
        (self.missing)()
    }

    /// The value's `is_other`, for a newtype around it.
    pub fn is_other_wrapped(&self, bytes: &[u8]) -> bool {
        (self.is_other)(bytes)
    }

    /// The value's `heap`, for a newtype around it.
    pub fn heap_wrapped(&self, bytes: &[u8]) -> usize {
        (self.heap)(bytes)
    }

    /// Adds the names under which the field may be stored.
    pub(crate) fn add_names(&self, names: &mut Vec<&'static str>) {
        match &self.part {
            Some(part) => part.for_each_name(&mut |name| names.push(name)),
            None => names.extend(std::iter::once(&self.name).chain(self.aliases)),
        }
    }

    fn error(&self, source: BoxError) -> FieldError {
        FieldError { field: self.name, source }
    }
}

impl<V> Codec<Option<V>> {
    /// A missing field is `None`.
    pub const fn optional(mut self) -> Self {
        self.missing = || Some(None);
        self.absent_values = 1;
        self
    }
}

impl<V> Clone for Codec<V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Codec<V> {}

/// The codec of a field without attributes: its own [`FieldValue`].
#[doc(hidden)]
pub const fn native<V: FieldValue>(name: &'static str) -> Codec<V> {
    Codec {
        heap: V::heap,
        missing: V::missing,
        is_other: V::is_other,
        absent_values: V::ABSENT_VALUES,
        ..Codec::with(name, V::try_encode, V::decode)
    }
}

/// Adds `#[cacheable(default)]` to a codec.
#[doc(hidden)]
pub const fn or_default<V: Default>(mut codec: Codec<V>) -> Codec<V> {
    codec.default = Some(V::default);
    codec
}

/// The codec of an id field.
#[doc(hidden)]
pub const fn id<V: IdField>(name: &'static str) -> Codec<V> {
    let mut codec = native(name);
    codec.write_id = |part: &V, out| part.write_parts(out);
    codec
}

/// For a field that is not part of the id.
fn no_id<V>(_: &V, _: &mut dyn IdParts) -> fmt::Result {
    Err(fmt::Error)
}

/// The codec of `#[cacheable(embed)]` on an `Option`: the fields of the embedded struct, or none of them.
#[doc(hidden)]
pub const fn optional_part<V>(name: &'static str, part: Part<Option<V>>) -> Codec<Option<V>> {
    let absent_values = part.absent_values;
    Codec { part: Some(part), absent_values, ..Codec::with(name, |_| Ok(None), |_| Ok(None)).optional() }
}

/// A value of a record that could not be encoded or decoded.
#[doc(hidden)]
#[derive(Debug, thiserror::Error)]
#[error("field `{field}`")]
pub struct FieldError {
    pub(crate) field: &'static str,
    pub(crate) source: BoxError,
}

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
        match &codec.part {
            Some(part) => (part.encode)(value, self),
            None => match codec.encode(value) {
                Ok(bytes) => self.fields.push((codec.name, bytes)),
                Err(mistake) => self.mistake = Some(mistake),
            },
        }
    }

    /// Leaves a field out.
    pub(super) fn leave_out(&mut self, name: &'static str) {
        self.fields.push((name, None));
    }

    /// All fields of the record.
    pub(crate) fn finish(self) -> Result<Changes, FieldError> {
        self.mistake.map_or(Ok(self.fields), Err)
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
    /// `None`: nobody wants to know.
    notes: Option<Notes>,
}

/// Notes about the values that a reader has read.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// An estimate of the heap memory that they own, in bytes.
    heap: usize,
    /// Whether one was a text that only the variant `other` of an enum stands for.
    pub(crate) has_other: bool,
}

impl<'a> RecordReader<'a> {
    pub(crate) fn new(hash: &'a Hash, selected: &'a [&'static str]) -> Self {
        Self { hash, selected, next: 0, notes: None }
    }

    /// Reads a field. A missing field has the value that its type or its attribute gives it.
    ///
    /// # Errors
    ///
    /// If the field is missing and has no such value, or if it can't be decoded.
    pub fn read<V>(&mut self, codec: &Codec<V>) -> Result<V, FieldError> {
        if let Some(part) = &codec.part {
            return (part.decode)(self);
        }
        match self.take_any(codec) {
            Some(bytes) => {
                if let Some(notes) = &mut self.notes {
                    notes.heap += (codec.heap)(bytes);
                    notes.has_other |= (codec.is_other)(bytes);
                }
                codec.decode(Cow::Borrowed(bytes))
            }
            None => codec.missing(),
        }
    }

    /// Finds a field by its own name, or by the first alias that exists.
    fn take_any<V>(&mut self, codec: &Codec<V>) -> Option<&'a [u8]> {
        self.take(codec.name).or_else(|| codec.aliases.iter().find_map(|alias| self.take(alias)))
    }

    /// Whether the hash has this field.
    pub(super) fn has(&mut self, field: &str) -> bool {
        let next = self.next;
        let has = self.take(field).is_some();
        // The field is still to be read.
        self.next = next;
        has
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

/// A record with its type erased. Only its cache knows the type.
pub(crate) type Record = Arc<dyn Any + Send + Sync>;

/// How records of one struct are read, written and named.
pub(crate) struct Shape {
    pub(crate) schema: Schema,
    /// The size of the struct itself, in bytes, without the heap memory of its fields.
    size: usize,
    decode: fn(&mut RecordReader<'_>) -> Result<Record, FieldError>,
    encode: fn(&Record, &mut RecordWriter),
    pub(crate) write_id: fn(&Record, &mut dyn IdParts) -> fmt::Result,
}

impl Shape {
    pub(crate) const fn of<T: Cacheable>() -> &'static Self {
        const {
            &Self {
                schema: T::SCHEMA,
                size: size_of::<T>(),
                decode: |reader| Ok(Arc::new(T::decode(reader)?)),
                encode: |record, writer| borrowed::<T>(record).encode(writer),
                write_id: |record, out| borrowed::<T>(record).write_id(out),
            }
        }
    }

    /// Decodes a whole record.
    pub(crate) fn decode(&self, hash: &Hash) -> Result<Record, FieldError> {
        (self.decode)(&mut RecordReader::new(hash, self.schema.fields))
    }

    /// Like `decode`, with an estimate of the record's memory in bytes.
    pub(crate) fn decode_weighed(&self, hash: &Hash) -> Result<(Record, usize), FieldError> {
        let (record, notes) = self.decode_noted(hash)?;
        Ok((record, heap::allocation(self.size + heap::REFERENCE_COUNTS) + notes.heap))
    }

    /// Like `decode`, with notes about the values.
    pub(crate) fn decode_noted(&self, hash: &Hash) -> Result<(Record, Notes), FieldError> {
        let mut reader = RecordReader { notes: Some(Notes::default()), ..RecordReader::new(hash, self.schema.fields) };
        let record = (self.decode)(&mut reader)?;
        Ok((record, reader.notes.unwrap_or_default()))
    }

    /// The fields of a record by name. `None` for a field that its hash leaves out.
    pub(crate) fn fields_of(&self, record: &Record) -> Result<Changes, FieldError> {
        let mut writer = RecordWriter::default();
        (self.encode)(record, &mut writer);
        writer.finish()
    }
}

/// Restores the type of a record.
pub(crate) fn typed<T: Cacheable>(record: Record) -> Arc<T> {
    record.downcast().expect(ONE_TYPE)
}

/// Borrows a record with its type restored.
pub(crate) fn borrowed<T: Cacheable>(record: &Record) -> &T {
    record.downcast_ref().expect(ONE_TYPE)
}

const ONE_TYPE: &str = "a cache takes records from its own struct's decoder and loaders alone";
