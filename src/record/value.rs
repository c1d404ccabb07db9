//! The value of one hash field: [`FieldValue`], and its impls for the standard types.
//!
//! The text forms are a wire contract with older releases and all other clients of the same Redis: they may be added to, but
//! never changed. Types of other crates are each behind a feature.
//!
//! The impls are marked `do_not_recommend`: for a type without one, the notes of the trait help more than a list of others.

#[cfg(feature = "chrono")]
mod chrono;
mod clock;
#[cfg(feature = "jiff")]
mod jiff;
#[cfg(feature = "time")]
mod time;

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num::NonZero;
use std::str::FromStr;
use std::sync::Arc;

use super::heap;
use crate::error::BoxError;

/// Converts a value to the bytes of one hash field, and back.
///
/// | type | text in Redis |
/// |---|---|
/// | integers, [`NonZero`] integers, `char`, `String`, `Box<str>`, `Arc<str>`, [`IpAddr`], [`SocketAddr`] and their `V4` and `V6` types | as `Display` writes it; integers with a `+`, with leading zeros or with spaces are refused |
/// | `bool` | `true` or `false`; `1` and `0` are read too |
/// | `f32`, `f64` | the shortest decimal that reads back the same, with an exponent where the plain form would be long; `NaN`, `inf`, `-inf` |
/// | `Vec<u8>`, `Box<[u8]>`, `Arc<[u8]>`, `[u8; N]`, `bytes::Bytes` (feature `bytes`) | the bytes |
/// | [`Duration`](std::time::Duration) | decimal seconds: `90`, `0.25` |
/// | [`SystemTime`](std::time::SystemTime), from 1970 to 9999 | RFC 3339 in UTC: `2026-01-31T12:00:00Z` |
/// | `Option<V>` | `None`: the field is not in the hash |
/// | `Box<V>`, `Arc<V>` | as `V` |
/// | enums without data, newtypes | with [`#[derive(FieldValue)]`](derive@crate::FieldValue) |
/// | `chrono`'s `DateTime<Utc>`, `DateTime<FixedOffset>` (feature `chrono`) | RFC 3339, like all times with a fraction of 3, 6 or 9 digits, or of none |
/// | `chrono`'s `NaiveDateTime`, `NaiveDate`, `NaiveTime` (feature `chrono`) | ISO 8601: `2026-01-31T12:00:00`, `2026-01-31`, `12:00:00` |
/// | `time`'s `OffsetDateTime`, years from 0 to 9999 (feature `time`) | RFC 3339 |
/// | `time`'s `PrimitiveDateTime`, `Date`, `Time`, years from 0 to 9999 (feature `time`) | ISO 8601, as for `chrono` |
/// | `jiff`'s `Timestamp`, `Zoned`, `civil::DateTime`, `civil::Date`, `civil::Time` (feature `jiff`) | RFC 3339, RFC 9557 for `Zoned`, ISO 8601 |
/// | `rust_decimal::Decimal`, `bigdecimal::BigDecimal` (features `rust_decimal`, `bigdecimal`) | as `Display` writes it |
/// | `smol_str::SmolStr`, `compact_str::CompactString` (features `smol_str`, `compact_str`) | the text |
/// | `uuid::Uuid` (feature `uuid`) | hyphenated lower case |
/// | `ulid::Ulid` (feature `ulid`) | 26 characters in upper case |
/// | `url::Url` (feature `url`) | the URL |
/// | `serde_json::Value` (feature `json`) | JSON text; `Value::Null` is `null` |
///
/// Implement it for a type of your own when its text form is worth reading in `redis-cli`. For one field there are
/// shorter ways: `#[cacheable(json)]` for any serde type, `#[cacheable(with = "module")]` for two functions.
///
/// # Examples
///
/// ```
/// use std::borrow::Cow;
/// use cache_aside::{BoxError, FieldValue};
///
/// #[derive(Debug, PartialEq)]
/// struct Percent(u8);
///
/// impl FieldValue for Percent {
///     fn encode(&self) -> Option<Vec<u8>> {
///         Some(format!("{}%", self.0).into_bytes())
///     }
///
///     fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
///         let text = std::str::from_utf8(&bytes)?;
///         let digits = text.strip_suffix('%').ok_or("a percentage ends with %")?;
///         Ok(Percent(digits.parse()?))
///     }
/// }
///
/// assert_eq!(Percent::decode(Cow::Borrowed(b"25%"))?, Percent(25));
/// # Ok::<_, BoxError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be stored in a hash field",
    label = "no `FieldValue`",
    note = "write `#[derive(FieldValue)]` on a newtype or an enum without data, or `#[cacheable(embed)]` on a struct's field,",
    note = "or put `#[cacheable(json)]` on the field to store any serde type as JSON text,",
    note = "or `#[cacheable(with = \"module\")]` to convert it with two functions of your own,",
    note = "or `#[cacheable(skip)]` to leave it out, or implement `FieldValue` for `{Self}`"
)]
pub trait FieldValue: Sized {
    /// The number of values that are stored as an absent field: one for an `Option`, and with two of them the field would be
    /// ambiguous.
    #[doc(hidden)]
    const ABSENT_VALUES: u8 = 0;

    /// Encodes the value; `None` leaves the field out of the hash.
    fn encode(&self) -> Option<Vec<u8>>;

    /// Decodes a value. Owned bytes can be taken over, without a copy.
    ///
    /// # Errors
    ///
    /// If the bytes aren't a value of this type. The entry is then unreadable: it counts as a miss, and the next load replaces
    /// it.
    fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError>;

    /// The value of a field that is not in the hash. `None`, the default, means that the field must exist.
    fn missing() -> Option<Self> {
        None
    }

    /// Encodes the value, or says that it can't be stored: in an `Option`, too, that is another thing than to be left out.
    #[doc(hidden)]
    fn try_encode(&self) -> Result<Option<Vec<u8>>, BoxError> {
        match self.encode() {
            None if Self::missing().is_none() => Err("this value can't be stored".into()),
            text => Ok(text),
        }
    }

    /// Whether only the variant `other` of an enum stands for this text. An update then deletes the entry: a process that knows
    /// the text would go on reading its old neighbours.
    #[doc(hidden)]
    fn is_other(_bytes: &[u8]) -> bool {
        false
    }

    /// An estimate of the heap memory that the value of this text owns, in bytes.
    #[doc(hidden)]
    fn heap(bytes: &[u8]) -> usize {
        // A type without drop glue owns none.
        if std::mem::needs_drop::<Self>() { heap::of_bytes(bytes) } else { 0 }
    }
}

/// Parses text that `Display` wrote. `expected` completes the error "expected ..".
fn parse<V: FromStr>(bytes: &[u8], expected: &str) -> Result<V, BoxError> {
    let text = std::str::from_utf8(bytes).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| unexpected(expected, bytes))
}

/// A text of a time with a fraction of 3, 6 or 9 digits, or of none. So all crates write the same text for the same time.
#[cfg(any(feature = "jiff", feature = "time"))]
fn with_whole_thousandths(mut text: String) -> String {
    if let Some((_, fraction)) = text.split_once('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        let end = text.len() - fraction.len() + digits;
        text.insert_str(end, &"00"[..digits.next_multiple_of(3) - digits]);
    }
    text
}

fn unexpected(expected: &str, found: &[u8]) -> BoxError {
    const SHOWN: usize = 32;
    let tail = if found.len() > SHOWN { ".." } else { "" };
    let start = &found[..found.len().min(SHOWN)];
    format!("expected {expected}, found \"{}\"{tail}", start.escape_ascii()).into()
}

/// Whether these are the digits that `Display` writes for an integer: `FromStr` alone also takes `+7`, `007` and `-0`.
fn is_canonical_integer(bytes: &[u8]) -> bool {
    match bytes {
        [b'0'] => true,
        [b'-', digits @ ..] | digits => matches!(digits.first(), Some(b'1'..=b'9')),
    }
}

macro_rules! integers {
    ($($ty:ty)*) => {$(
        #[diagnostic::do_not_recommend]
        impl FieldValue for $ty {
            fn encode(&self) -> Option<Vec<u8>> {
                Some(self.to_string().into_bytes())
            }

            fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
                const EXPECTED: &str = concat!("a decimal ", stringify!($ty));
                if is_canonical_integer(&bytes) {
                    parse(&bytes, EXPECTED)
                } else {
                    Err(unexpected(EXPECTED, &bytes))
                }
            }
        }

        #[diagnostic::do_not_recommend]
        impl FieldValue for NonZero<$ty> {
            fn encode(&self) -> Option<Vec<u8>> {
                self.get().encode()
            }

            fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
                let value = <$ty>::decode(bytes)?;
                NonZero::new(value).ok_or_else(|| unexpected("anything but zero", b"0"))
            }
        }
    )*};
}

integers!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize);

macro_rules! floats {
    ($($ty:ty)*) => {$(
        #[diagnostic::do_not_recommend]
        impl FieldValue for $ty {
            fn encode(&self) -> Option<Vec<u8>> {
                // The longest plain form of 17 digits near 1. A longer one only adds zeros.
                const LONGEST_PLAIN: usize = 24;
                let plain = self.to_string();
                let text = if plain.len() > LONGEST_PLAIN { format!("{self:e}") } else { plain };
                Some(text.into_bytes())
            }

            fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
                parse(&bytes, concat!("a decimal ", stringify!($ty)))
            }
        }
    )*};
}

floats!(f32 f64);

macro_rules! displayed {
    ($($(#[$gate:meta])? $ty:ty: $expected:literal,)*) => {$(
        $(#[$gate])?
        #[diagnostic::do_not_recommend]
        impl FieldValue for $ty {
            fn encode(&self) -> Option<Vec<u8>> {
                Some(self.to_string().into_bytes())
            }

            fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
                parse(&bytes, $expected)
            }
        }
    )*};
}

displayed! {
    char: "one character",
    IpAddr: "an IP address",
    Ipv4Addr: "an IPv4 address",
    Ipv6Addr: "an IPv6 address",
    SocketAddr: "an IP address with a port",
    SocketAddrV4: "an IPv4 address with a port",
    SocketAddrV6: "an IPv6 address with a port",
    #[cfg(feature = "bigdecimal")]
    bigdecimal::BigDecimal: "a decimal number",
    #[cfg(feature = "chrono")]
    ::chrono::NaiveDate: "a date such as 2026-01-31",
    #[cfg(feature = "chrono")]
    ::chrono::NaiveTime: "a time of day such as 12:00:00",
    #[cfg(feature = "rust_decimal")]
    rust_decimal::Decimal: "a decimal number",
    #[cfg(feature = "ulid")]
    ulid::Ulid: "a ULID",
    #[cfg(feature = "url")]
    url::Url: "a URL",
    #[cfg(feature = "uuid")]
    uuid::Uuid: "a UUID",
}

#[diagnostic::do_not_recommend]
impl FieldValue for bool {
    fn encode(&self) -> Option<Vec<u8>> {
        Some(self.to_string().into_bytes())
    }

    fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
        match &*bytes {
            b"true" | b"1" => Ok(true),
            b"false" | b"0" => Ok(false),
            other => Err(unexpected("true or false", other)),
        }
    }
}

macro_rules! texts {
    ($($(#[$gate:meta])? $ty:ty,)*) => {$(
        $(#[$gate])?
        #[diagnostic::do_not_recommend]
        impl FieldValue for $ty {
            fn encode(&self) -> Option<Vec<u8>> {
                Some(self.as_bytes().to_vec())
            }

            fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
                Ok(String::from_utf8(bytes.into_owned())?.into())
            }
        }
    )*};
}

texts! {
    String,
    Box<str>,
    Arc<str>,
    #[cfg(feature = "compact_str")]
    compact_str::CompactString,
    #[cfg(feature = "smol_str")]
    smol_str::SmolStr,
}

macro_rules! octets {
    ($($(#[$gate:meta])? $ty:ty,)*) => {$(
        $(#[$gate])?
        #[diagnostic::do_not_recommend]
        impl FieldValue for $ty {
            fn encode(&self) -> Option<Vec<u8>> {
                Some(self.to_vec())
            }

            fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
                Ok(bytes.into_owned().into())
            }
        }
    )*};
}

octets! {
    Vec<u8>,
    Box<[u8]>,
    Arc<[u8]>,
    #[cfg(feature = "bytes")]
    bytes::Bytes,
}

#[diagnostic::do_not_recommend]
impl<const N: usize> FieldValue for [u8; N] {
    fn encode(&self) -> Option<Vec<u8>> {
        Some(self.to_vec())
    }

    fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
        (*bytes).try_into().map_err(|_| format!("expected {N} bytes, found {}", bytes.len()).into())
    }
}

impl<V: FieldValue> FieldValue for Option<V> {
    const ABSENT_VALUES: u8 = V::ABSENT_VALUES.saturating_add(1);

    fn encode(&self) -> Option<Vec<u8>> {
        self.as_ref().and_then(FieldValue::encode)
    }

    fn try_encode(&self) -> Result<Option<Vec<u8>>, BoxError> {
        self.as_ref().map_or(Ok(None), FieldValue::try_encode)
    }

    fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
        V::decode(bytes).map(Some)
    }

    fn missing() -> Option<Self> {
        Some(None)
    }

    fn is_other(bytes: &[u8]) -> bool {
        V::is_other(bytes)
    }

    fn heap(bytes: &[u8]) -> usize {
        V::heap(bytes)
    }
}

macro_rules! pointers {
    ($($pointer:ident)*) => {$(
        #[diagnostic::do_not_recommend]
        impl<V: FieldValue> FieldValue for $pointer<V> {
            const ABSENT_VALUES: u8 = V::ABSENT_VALUES;

            fn encode(&self) -> Option<Vec<u8>> {
                (**self).encode()
            }

            fn try_encode(&self) -> Result<Option<Vec<u8>>, BoxError> {
                (**self).try_encode()
            }

            fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
                V::decode(bytes).map(Self::new)
            }

            fn missing() -> Option<Self> {
                V::missing().map(Self::new)
            }

            fn is_other(bytes: &[u8]) -> bool {
                V::is_other(bytes)
            }

            fn heap(bytes: &[u8]) -> usize {
                heap::allocation(heap::REFERENCE_COUNTS + size_of::<V>()) + V::heap(bytes)
            }
        }
    )*};
}

pointers!(Arc Box);

/// The error for a text that no variant of an enum has.
#[doc(hidden)]
pub fn unknown_variant(known: &[&str], found: &[u8]) -> BoxError {
    unexpected(&known.join(" or "), found)
}
