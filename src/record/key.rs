//! Ids and keys: [`CacheId`], a type that can be an id or a part of one, [`CacheKey`], a value that a call accepts as an id, and
//! the grammar of the Redis keys of an id's entry and lease.
//!
//! Keeps two promises. Different ids never share a key: an id writes its plain text, and here the bytes that structure a key,
//! and `%` itself, are escaped. No id leaves its prefix or chooses its cluster slot: an escaped id has no `:`, `/` or brace, so
//! the hash tag of the lease's key is always the whole key of the entry.
//!
//! The impls are marked `do_not_recommend`, because the notes of the traits already name the types that the compiler would list.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::{self, Write};
use std::hash::Hash;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZero;
use std::sync::Arc;

use super::{FieldValue, Schema};
use crate::error::Error;

/// A type that can be an id, or one part of an id of several fields.
///
/// Implemented for integers, `NonZero` integers, `bool`, `char`, `String`, `Box<str>`, `Arc<str>`, IP addresses and,
/// with the feature `uuid`, `uuid::Uuid`. `#[derive(CacheId)]` implements it for a newtype around one of these, together with
/// [`FieldValue`]: every id is one, since it is stored like any other field.
///
/// # Examples
///
/// ```
/// use cache_aside::{CacheId, Cacheable};
///
/// #[derive(Debug, Clone, PartialEq, Eq, Hash, CacheId)]
/// struct OrderId(u64);
///
/// #[derive(Debug, Cacheable)]
/// struct Order {
///     #[cacheable(id)]
///     id: OrderId,
///     total_cents: i64,
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be an id, or a part of one",
    label = "no `CacheId`",
    note = "ids are integers, `bool`, `char`, `String`, `Box<str>`, `Arc<str>`, IP addresses and `Uuid`, never an `Option`;",
    note = "for a newtype around one of these write `#[derive(Clone, PartialEq, Eq, Hash, CacheId)]`"
)]
pub trait CacheId: FieldValue + Clone + Eq + Hash + Send + Sync + 'static {
    /// Writes the id as plain text, which is never empty, and different for different ids. The text is then escaped for the
    /// key.
    ///
    /// # Errors
    ///
    /// Passes on the errors of `out`. Any other error makes the id invalid.
    fn write_id(&self, out: &mut dyn fmt::Write) -> fmt::Result;
}

/// A value that a call accepts as an id of type `Id`: the id itself, a reference to it, or a value that converts to it
/// without loss, such as `"p-001"` for a `String`, or `("acme", 42)` for `(String, u64)`.
///
/// Never implement it by hand: it follows from [`CacheId`]. Code that is generic over the record needs a bound to pass ids; to
/// pass references to them, `for<'a> &'a T::Id: CacheKey<T::Id>`:
///
/// ```
/// use cache_aside::{Cache, CacheKey, Cacheable, Error};
///
/// async fn forget<T: Cacheable>(cache: &Cache<T>, record: &T) -> Result<bool, Error>
/// where
///     T::Id: CacheKey<T::Id>,
/// {
///     cache.invalidate(record.id()).await
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't stand for an id of type `{Id}`",
    label = "this struct's id is `{Id}`",
    note = "pass the id, a reference to it, or for text a `&str`; for an id of several fields a tuple of these in declaration order;",
    note = "in code that is generic over the record, write `where T::Id: CacheKey<T::Id>`"
)]
pub trait CacheKey<Id>: Send {
    /// Writes each part as plain text, and calls [`IdParts::next_part`] before each.
    #[doc(hidden)]
    fn write_parts(&self, out: &mut dyn IdParts) -> fmt::Result;

    /// Makes the id, for the loader.
    #[doc(hidden)]
    fn into_id(self) -> Id;
}

/// The writer that [`CacheKey::write_parts`] writes to.
#[doc(hidden)]
#[allow(unnameable_types)]
pub trait IdParts: fmt::Write {
    /// Begins the next part of the id.
    fn next_part(&mut self) -> fmt::Result;
}

#[diagnostic::do_not_recommend]
impl<I: CacheId> CacheKey<I> for I {
    fn write_parts(&self, out: &mut dyn IdParts) -> fmt::Result {
        out.next_part()?;
        self.write_id(&mut *out)
    }

    fn into_id(self) -> I {
        self
    }
}

#[diagnostic::do_not_recommend]
impl<I: CacheId> CacheKey<I> for &I {
    fn write_parts(&self, out: &mut dyn IdParts) -> fmt::Result {
        (*self).write_parts(out)
    }

    fn into_id(self) -> I {
        self.clone()
    }
}

macro_rules! display_ids {
    ($($ty:ty)*) => {$(
        #[diagnostic::do_not_recommend]
        impl CacheId for $ty {
            fn write_id(&self, out: &mut dyn fmt::Write) -> fmt::Result {
                write!(out, "{self}")
            }
        }
    )*};
}

display_ids!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize bool char IpAddr Ipv4Addr Ipv6Addr);
display_ids!(NonZero<u8> NonZero<u16> NonZero<u32> NonZero<u64> NonZero<u128> NonZero<usize>);
#[cfg(feature = "uuid")]
display_ids!(uuid::Uuid);
display_ids!(NonZero<i8> NonZero<i16> NonZero<i32> NonZero<i64> NonZero<i128> NonZero<isize>);

macro_rules! text_ids {
    ($($id:ty)*) => {$(
        #[diagnostic::do_not_recommend]
        impl CacheId for $id {
            fn write_id(&self, out: &mut dyn fmt::Write) -> fmt::Result {
                out.write_str(self)
            }
        }

        text_keys!($id: &str, &&str, Cow<'_, str>, &Cow<'_, str>,);
    )*};
}

macro_rules! text_keys {
    ($id:ty: $($key:ty,)*) => {$(
        #[diagnostic::do_not_recommend]
        impl CacheKey<$id> for $key {
            fn write_parts(&self, out: &mut dyn IdParts) -> fmt::Result {
                out.next_part()?;
                out.write_str(self)
            }

            fn into_id(self) -> $id {
                <$id>::from(&*self as &str)
            }
        }
    )*};
}

text_ids!(String Box<str> Arc<str>);
text_keys!(String: Box<str>, &Box<str>, Arc<str>, &Arc<str>,);
text_keys!(Box<str>: String, &String, Arc<str>, &Arc<str>,);
text_keys!(Arc<str>: String, &String, Box<str>, &Box<str>,);

macro_rules! tuples {
    ($(($($key:ident $id:ident $index:tt),+))*) => {$(
        #[diagnostic::do_not_recommend]
        impl<$($key, $id),+> CacheKey<($($id,)+)> for ($($key,)+)
        where
            $($key: CacheKey<$id>,)+
        {
            fn write_parts(&self, out: &mut dyn IdParts) -> fmt::Result {
                $(self.$index.write_parts(out)?;)+
                Ok(())
            }

            fn into_id(self) -> ($($id,)+) {
                ($(self.$index.into_id(),)+)
            }
        }

        #[diagnostic::do_not_recommend]
        impl<'a, $($key, $id),+> CacheKey<($($id,)+)> for &'a ($($key,)+)
        where
            $($key: Sync, &'a $key: CacheKey<$id>,)+
        {
            fn write_parts(&self, out: &mut dyn IdParts) -> fmt::Result {
                let parts: &'a ($($key,)+) = self;
                $((&parts.$index).write_parts(out)?;)+
                Ok(())
            }

            fn into_id(self) -> ($($id,)+) {
                ($((&self.$index).into_id(),)+)
            }
        }
    )*};
}

tuples! {
    (A IA 0, B IB 1)
    (A IA 0, B IB 1, C IC 2)
    (A IA 0, B IB 1, C IC 2, D ID 3)
    (A IA 0, B IB 1, C IC 2, D ID 3, E IE 4)
    (A IA 0, B IB 1, C IC 2, D ID 3, E IE 4, F IF 5)
    (A IA 0, B IB 1, C IC 2, D ID 3, E IE 4, F IF 5, G IG 6)
    (A IA 0, B IB 1, C IC 2, D ID 3, E IE 4, F IF 5, G IG 6, H IH 7)
}

/// The most bytes that an escaped id may have.
const MAX_ID_BYTES: usize = 1024;

thread_local! {
    /// The buffer that keys are written to first, so that each key is one allocation of its exact length.
    static DRAFT: Cell<String> = const { Cell::new(String::new()) };
}

/// The key of an entry, within the key of its lease. A miss clones it many times, so clones share the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key(Arc<str>);

/// The text before and after the entry's key in the lease's key.
const TAG: (&str, &str) = ("{", "}:lock");

impl Key {
    pub(crate) fn as_str(&self) -> &str {
        &self.0[TAG.0.len()..self.0.len() - TAG.1.len()]
    }

    /// The prefix of all keys of its type.
    pub(crate) fn prefix(&self) -> &str {
        // An escaped id has no `:`.
        let key = self.as_str();
        key.rfind(':').map_or("", |end| &key[..=end])
    }

    /// The id, as written in the key.
    pub(crate) fn id(&self) -> &str {
        &self.as_str()[self.prefix().len()..]
    }

    /// The key of the entry's lease, in the same slot.
    pub(crate) fn lock(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The keys of one cache: their prefix, which comes before the id.
#[derive(Debug)]
pub(crate) struct KeySpace {
    prefix: String,
    /// The prefixes of the other versions, which are invalidated too.
    other_versions: Vec<String>,
}

impl KeySpace {
    /// The prefixes of this version and of the other versions.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.prefix).chain(&self.other_versions).map(String::as_str)
    }

    pub(crate) fn new(namespace: Option<&str>, schema: &Schema) -> Self {
        let namespace = namespace.map(|namespace| format!("{namespace}:")).unwrap_or_default();
        let prefix = |version: Option<u32>| {
            let version = version.map(|version| format!("@{version}")).unwrap_or_default();
            format!("cache:{namespace}{}{version}:", schema.entity)
        };
        let other_versions = schema.also_invalidates.iter().copied().map(prefix).collect();
        Self { prefix: prefix(schema.version), other_versions }
    }

    /// The keys of the same id in the other versions.
    pub(crate) fn in_other_versions(&self, key: &Key) -> impl Iterator<Item = Key> {
        let id = key.as_str().strip_prefix(&self.prefix).expect("the key was made here");
        self.other_versions.iter().map(move |prefix| Key([TAG.0, prefix, id, TAG.1].concat().into()))
    }

    /// The prefix of this version's keys.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn key<Id>(&self, id: &impl CacheKey<Id>) -> Result<Key, Error> {
        self.key_by(&mut |out| id.write_parts(out))
    }

    /// The key of the id that `write_id` writes.
    pub(crate) fn key_by(&self, write_id: WriteId<'_>) -> Result<Key, Error> {
        let mut draft = IdWriter::begin([TAG.0, &self.prefix]);
        match draft.write_id(write_id) {
            Ok(()) => {
                draft.key.push_str(TAG.1);
                Ok(Key(draft.key.as_str().into()))
            }
            Err(mistake) => Err(Error::invalid_id(&draft.key[TAG.0.len()..], mistake)),
        }
    }

    /// Shows an id as written in a key. `None` if it is invalid.
    pub(crate) fn with_id<R>(write_id: WriteId<'_>, show: impl FnOnce(&str) -> Option<R>) -> Option<R> {
        let mut draft = IdWriter::begin([]);
        draft.write_id(write_id).ok()?;
        show(&draft.key)
    }
}

/// Writes an id's parts.
pub(crate) type WriteId<'a> = &'a mut dyn FnMut(&mut dyn IdParts) -> fmt::Result;

/// Appends the parts of an id to a key, escaped and joined by `/`.
struct IdWriter {
    /// The thread's buffer, which is given back at the end.
    key: String,
    id_start: usize,
    part_start: Option<usize>,
    mistake: Option<&'static str>,
}

impl IdWriter {
    fn begin<const N: usize>(begin: [&str; N]) -> Self {
        // The buffer is empty if an id makes a key while it is written, and gone if the thread is ending.
        let mut key = DRAFT.try_with(Cell::take).unwrap_or_default();
        begin.iter().for_each(|text| key.push_str(text));
        Self { id_start: key.len(), part_start: None, key, mistake: None }
    }

    /// Returns what is wrong with the id.
    fn write_id(&mut self, write_id: WriteId<'_>) -> Result<(), &'static str> {
        let written = write_id(self).and_then(|()| self.end_part());
        let failed = written.err().map(|fmt::Error| "its `write_id` returned an error");
        // The id's own code may have dropped the error of a refusal.
        self.mistake.or(failed).map_or(Ok(()), Err)
    }

    fn refuse(&mut self, mistake: &'static str) -> fmt::Result {
        self.mistake = Some(mistake);
        Err(fmt::Error)
    }

    fn fits(&self, more: usize) -> bool {
        self.key.len() - self.id_start + more <= MAX_ID_BYTES
    }

    fn end_part(&mut self) -> fmt::Result {
        if self.part_start == Some(self.key.len()) {
            return self.refuse("it is empty, or has an empty part");
        }
        Ok(())
    }
}

impl IdParts for IdWriter {
    fn next_part(&mut self) -> fmt::Result {
        self.end_part()?;
        if self.part_start.is_some() {
            self.key.push('/');
        }
        self.part_start = Some(self.key.len());
        Ok(())
    }
}

impl Drop for IdWriter {
    fn drop(&mut self) {
        const KEPT_BYTES: usize = 4 * MAX_ID_BYTES;
        self.key.clear();
        self.key.shrink_to(KEPT_BYTES);
        let _ = DRAFT.try_with(|draft| draft.set(mem::take(&mut self.key)));
    }
}

impl Write for IdWriter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.bytes().position(is_escaped)
            && self.fits(at)
        {
            self.key.push_str(&rest[..at]);
            write!(self.key, "%{:02X}", rest.as_bytes()[at])?;
            rest = &rest[at + 1..];
        }
        self.key.push_str(rest);
        if !self.fits(0) {
            return self.refuse("it has more than 1,024 bytes as written in a key");
        }
        Ok(())
    }
}

fn is_escaped(byte: u8) -> bool {
    byte <= b' ' || matches!(byte, 0x7F | b'%' | b'/' | b':' | b'{' | b'}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_the_same_text_in_the_keys_of_every_version() {
        let schema = Schema { version: Some(3), also_invalidates: &[Some(2), None], ..Schema::new("product") };
        let keys = KeySpace::new(Some("billing"), &schema);
        let key = keys.key::<(String, u64)>(&("a:b", 42)).unwrap();
        assert_eq!(key.as_str(), "cache:billing:product@3:a%3Ab/42");
        assert_eq!((key.prefix(), key.id()), ("cache:billing:product@3:", "a%3Ab/42"));
        let others: Vec<_> = keys.in_other_versions(&key).map(|key| key.to_string()).collect();
        assert_eq!(others, ["cache:billing:product@2:a%3Ab/42", "cache:billing:product:a%3Ab/42"]);
    }
}
