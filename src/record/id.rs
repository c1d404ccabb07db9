//! Ids: [`CacheId`], a type that can be an id or a part of one, and [`CacheKey`], a value that a call accepts as an id.
//!
//! An id writes its plain text; `key` escapes it. The impls are marked `do_not_recommend`, because the notes of the traits already
//! name the types that the compiler would list.

use std::borrow::Cow;
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZero;
use std::sync::Arc;

use super::FieldValue;

/// A type that can be an id, or one part of an id of several fields.
///
/// Implemented for integers, `NonZero` integers, `bool`, `char`, `String`, `Box<str>`, `Arc<str>`, IP addresses, `[u8; N]` (as
/// lower-case hexadecimal digits) and, with the features of their crates, `Uuid`, `Ulid`, `SmolStr`, `CompactString` and the dates
/// of `chrono`, `time` and `jiff`. [`#[derive(CacheId)]`](derive@crate::CacheId) implements it for a newtype around one of these, and
/// for an enum without data. An id is also stored as a field of its record, so the type has to be a
/// [`FieldValue`](crate::FieldValue) too.
///
/// # Examples
///
/// ```
/// use cache_aside::{CacheId, Cacheable, FieldValue};
///
/// #[derive(Debug, Clone, PartialEq, Eq, Hash, FieldValue, CacheId)]
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
    note = "ids are integers, `bool`, `char`, texts, IP addresses, `Uuid`, `Ulid`, dates and `[u8; N]`, never an `Option`;",
    note = "for a newtype around one of these, or an enum without data, write `#[derive(Clone, PartialEq, Eq, Hash, FieldValue, CacheId)]`"
)]
pub trait CacheId: Clone + Eq + Hash + Send + Sync + 'static {
    /// Writes the id as plain text, which is never empty, and different for different ids. The text is then escaped for the
    /// key.
    ///
    /// # Errors
    ///
    /// Passes on the errors of `out`. Any other error makes the id invalid.
    fn write_id(&self, out: &mut dyn fmt::Write) -> fmt::Result;
}

/// What the type of an id field must be, as one bound: without both it is one mistake.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be an id, or a part of one",
    label = "an id needs `CacheId` and `FieldValue`",
    note = "ids are integers, `bool`, `char`, texts, IP addresses, `Uuid`, `Ulid`, dates and `[u8; N]`, never an `Option`;",
    note = "for a newtype around one of these, or an enum without data, write `#[derive(Clone, PartialEq, Eq, Hash, FieldValue, CacheId)]`"
)]
pub trait IdField: CacheId + FieldValue {}

#[diagnostic::do_not_recommend]
impl<V: CacheId + FieldValue> IdField for V {}

/// A value that a call accepts as an id of type `Id`: the id itself, a reference to it, or a value that converts to it
/// without loss, such as `"p-001"` for a `String`, `("acme", 42)` for `(String, u64)`, or what a newtype wraps.
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
display_ids!(NonZero<i8> NonZero<i16> NonZero<i32> NonZero<i64> NonZero<i128> NonZero<isize>);
#[cfg(feature = "chrono")]
display_ids!(chrono::NaiveDate);
#[cfg(feature = "jiff")]
display_ids!(jiff::civil::Date);
#[cfg(feature = "ulid")]
display_ids!(ulid::Ulid);
#[cfg(feature = "uuid")]
display_ids!(uuid::Uuid);

#[cfg(feature = "time")]
#[diagnostic::do_not_recommend]
impl CacheId for time::Date {
    fn write_id(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let text = FieldValue::encode(self).and_then(|text| String::from_utf8(text).ok());
        out.write_str(&text.ok_or(fmt::Error)?)
    }
}

/// As hexadecimal digits: a key is text.
#[diagnostic::do_not_recommend]
impl<const N: usize> CacheId for [u8; N] {
    fn write_id(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        self.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// The id of a [`singleton`](crate::Cacheable#attributes-of-the-struct).
#[diagnostic::do_not_recommend]
impl CacheId for () {
    fn write_id(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        out.write_str("_")
    }
}

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
#[cfg(feature = "compact_str")]
text_ids!(compact_str::CompactString);
#[cfg(feature = "smol_str")]
text_ids!(smol_str::SmolStr);
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

/// Writes an id, for a newtype around it.
#[doc(hidden)]
pub fn write_id<I: CacheId>(id: &I, out: &mut dyn fmt::Write) -> fmt::Result {
    id.write_id(out)
}
