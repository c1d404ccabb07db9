//! The name of one field in the hash, and the functions that convert its values: [`Codec`].
//!
//! The attributes of a field choose its codec: [`native`] without any, [`id`] for `id`, [`json`] for `json`, and for `with`
//! the derive generates the functions. A codec is a value, not a type with bounds. So the compiler checks the field's type in
//! one place, where the codec is made, and reports a type that doesn't fit once, at that type.

use std::borrow::Cow;
use std::fmt;

use super::{CacheId, CacheKey, FieldValue, IdParts, heap};
use crate::error::BoxError;

/// The name of one field in the hash, and the functions that convert its values of type `V`.
#[doc(hidden)]
#[derive(Debug)]
pub struct Codec<V> {
    name: &'static str,
    /// The other names to read it from, in this order.
    aliases: &'static [&'static str],
    encode: fn(&V) -> Result<Option<Vec<u8>>, BoxError>,
    decode: fn(Cow<'_, [u8]>) -> Result<V, BoxError>,
    missing: fn() -> Option<V>,
    /// The value of a missing field with `#[cacheable(default)]`.
    default: Option<fn() -> V>,
    /// Writes a part of an id.
    write_id: fn(&V, &mut dyn IdParts) -> fmt::Result,
    /// An estimate of the heap memory that a value of this text owns, in bytes.
    heap: fn(&[u8]) -> usize,
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
            encode,
            decode,
            missing: || None,
            default: None,
            write_id: no_id,
            heap: heap_of::<V>(),
        }
    }

    /// Also reads the field from these names, in this order.
    pub const fn aliases(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) const fn other_names(&self) -> &'static [&'static str] {
        self.aliases
    }

    /// Encodes a value; `None` leaves the field out of the hash.
    pub(crate) fn encode(&self, value: &V) -> Result<Option<Vec<u8>>, FieldError> {
        match (self.encode)(value).map_err(|source| self.error(source))? {
            None if (self.missing)().is_none() => Err(self.error("this value can't be stored".into())),
            bytes => Ok(bytes),
        }
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

    pub(crate) fn heap(&self, bytes: &[u8]) -> usize {
        (self.heap)(bytes)
    }

    /// The value of a field that is not in the hash.
    pub(crate) fn missing(&self) -> Result<V, FieldError> {
        match self.default {
            Some(default) => Ok(default()),
            None => (self.missing)().ok_or_else(|| self.error("it is not in the hash".into())),
        }
    }

    fn error(&self, source: BoxError) -> FieldError {
        FieldError { field: self.name, source }
    }
}

impl<V> Clone for Codec<V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Codec<V> {}

/// A type without drop glue owns no heap memory.
const fn heap_of<V>() -> fn(&[u8]) -> usize {
    if std::mem::needs_drop::<V>() { heap::of_bytes } else { |_| 0 }
}

/// The codec of a field without attributes: its own [`FieldValue`].
#[doc(hidden)]
pub const fn native<V: FieldValue>(name: &'static str) -> Codec<V> {
    let encode: fn(&V) -> _ = |value| Ok(value.encode());
    Codec {
        name,
        aliases: &[],
        encode,
        decode: V::decode,
        missing: V::missing,
        default: None,
        write_id: no_id,
        heap: heap_of::<V>(),
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
pub const fn id<V: CacheId>(name: &'static str) -> Codec<V> {
    let mut codec = native(name);
    codec.write_id = |part: &V, out| part.write_parts(out);
    codec
}

/// For a field that is not part of the id.
fn no_id<V>(_: &V, _: &mut dyn IdParts) -> fmt::Result {
    Err(fmt::Error)
}

/// The codec of `#[cacheable(json)]`: JSON text. `null` (a `None`) is an absent field.
#[cfg(feature = "json")]
#[doc(hidden)]
pub const fn json<V: serde::Serialize + serde::de::DeserializeOwned>(name: &'static str) -> Codec<V> {
    const NULL: &[u8] = b"null";

    Codec {
        name,
        aliases: &[],
        encode: |value| {
            let text = serde_json::to_vec(value)?;
            Ok((text != NULL).then_some(text))
        },
        decode: |bytes| Ok(serde_json::from_slice(&bytes)?),
        missing: || serde_json::from_slice(NULL).ok(),
        default: None,
        write_id: no_id,
        heap: heap::of_json,
    }
}

/// A value of a record that could not be encoded or decoded.
#[doc(hidden)]
#[derive(Debug, thiserror::Error)]
#[error("field `{field}`")]
pub struct FieldError {
    pub(crate) field: &'static str,
    pub(crate) source: BoxError,
}
