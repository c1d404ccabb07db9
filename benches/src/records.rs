//! The records: with 4, 16 and 64 fields, each in the form that every contender needs.

use std::sync::LazyLock;

use cache_aside::Cacheable;
use hitbox_derive::CacheableResponse;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The number of ids.
pub(crate) const IDS: usize = 1_000;

/// A new copy of an id, as if it had come with a request.
pub(crate) fn id(at: usize) -> String {
    borrowed_id(at).to_owned()
}

pub(crate) fn borrowed_id(at: usize) -> &'static str {
    static ALL: LazyLock<Vec<String>> = LazyLock::new(|| (0..IDS).map(|at| format!("p-{at:03}")).collect());
    &ALL[at % IDS]
}

/// A record that all contenders can store.
pub(crate) trait Record:
    Cacheable<Id = String> + hitbox::CacheableResponse<Cached = Self> + Serialize + DeserializeOwned + Clone
{
    const NAMES: &'static [&'static str];

    fn sample(id: String) -> Self;

    /// Creates a record from the values of all fields, in order.
    fn from_values(values: impl Iterator<Item = Vec<u8>>) -> Option<Self>;

    /// Creates a record from names and values in any order.
    fn from_pairs(pairs: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Option<Self>;

    /// Names and values.
    fn pairs(&self) -> Vec<(&'static str, String)>;
}

/// A value that is decoded by hand.
trait Value: Sized {
    fn sample(name: &str) -> Self;
    fn parse(bytes: Vec<u8>) -> Option<Self>;
}

impl Value for String {
    fn sample(name: &str) -> Self {
        format!("the {name} of it")
    }

    fn parse(bytes: Vec<u8>) -> Option<Self> {
        String::from_utf8(bytes).ok()
    }
}

impl Value for i64 {
    fn sample(name: &str) -> Self {
        name.len() as i64 * 123
    }

    fn parse(bytes: Vec<u8>) -> Option<Self> {
        std::str::from_utf8(&bytes).ok()?.parse().ok()
    }
}

impl Value for u32 {
    fn sample(name: &str) -> Self {
        name.len() as u32
    }

    fn parse(bytes: Vec<u8>) -> Option<Self> {
        std::str::from_utf8(&bytes).ok()?.parse().ok()
    }
}

/// A struct with an id and these fields.
macro_rules! record {
    ($record:ident: $($field:ident: $ty:ty),* $(,)?) => {
        #[derive(Debug, Clone, Serialize, Deserialize, Cacheable, CacheableResponse)]
        #[cacheable(namespace = "bench", ttl = "1h", not_found_ttl = "30m")]
        pub(crate) struct $record {
            #[cacheable(id)]
            pub(crate) id: String,
            $(pub(crate) $field: $ty,)*
        }

        impl Record for $record {
            const NAMES: &'static [&'static str] = &["id", $(stringify!($field)),*];

            fn sample(id: String) -> Self {
                Self { id, $($field: Value::sample(stringify!($field)),)* }
            }

            fn from_values(mut values: impl Iterator<Item = Vec<u8>>) -> Option<Self> {
                Some(Self { id: Value::parse(values.next()?)?, $($field: Value::parse(values.next()?)?,)* })
            }

            fn from_pairs(pairs: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Option<Self> {
                let mut id = None;
                $(let mut $field = None;)*
                for (name, value) in pairs {
                    match name.as_slice() {
                        b"id" => id = Some(value),
                        $(name if name == stringify!($field).as_bytes() => $field = Some(value),)*
                        _ => {}
                    }
                }
                Some(Self { id: Value::parse(id?)?, $($field: Value::parse($field?)?,)* })
            }

            fn pairs(&self) -> Vec<(&'static str, String)> {
                vec![("id", self.id.clone()), $((stringify!($field), self.$field.to_string())),*]
            }
        }
    };
}

record!(Product: name: String, price_cents: i64, stock: u32);

record!(Sixteen:
    a01: String, a02: i64, a03: u32, a04: String, a05: i64, a06: u32, a07: String, a08: i64,
    a09: u32, a10: String, a11: i64, a12: u32, a13: String, a14: i64, a15: u32);

record!(SixtyFour:
    a01: String, a02: i64, a03: u32, a04: String, a05: i64, a06: u32, a07: String, a08: i64,
    a09: u32, a10: String, a11: i64, a12: u32, a13: String, a14: i64, a15: u32, a16: String,
    a17: i64, a18: u32, a19: String, a20: i64, a21: u32, a22: String, a23: i64, a24: u32,
    a25: String, a26: i64, a27: u32, a28: String, a29: i64, a30: u32, a31: String, a32: i64,
    a33: u32, a34: String, a35: i64, a36: u32, a37: String, a38: i64, a39: u32, a40: String,
    a41: i64, a42: u32, a43: String, a44: i64, a45: u32, a46: String, a47: i64, a48: u32,
    a49: String, a50: i64, a51: u32, a52: String, a53: i64, a54: u32, a55: String, a56: i64,
    a57: u32, a58: String, a59: i64, a60: u32, a61: String, a62: i64, a63: u32);
