//! The rows of public Rust services: each struct as its project has it, with the attributes that the cache needs. `row!` also
//! keeps the fields as they are written, so that they can be counted.

use std::fmt::Debug;

use cache_aside::Cacheable;

use crate::sample::Sample;

pub(crate) trait Row: Cacheable + Clone + PartialEq + Debug + Sample {
    const AS_WRITTEN: &'static [RowField];
}

/// A field as it is written.
pub(crate) struct RowField {
    pub(crate) ty: &'static str,
    pub(crate) attributes: &'static [&'static str],
}

macro_rules! row {
    ($(#[$of_struct:meta])* struct $name:ident { $($(#[$of_field:meta])* $field:ident: $ty:ty,)* }) => {
        part! {
            #[derive(Debug, Clone, PartialEq, cache_aside::Cacheable)]
            $(#[$of_struct])*
            struct $name { $($(#[$of_field])* $field: $ty,)* }
        }

        impl $crate::row::Row for $name {
            const AS_WRITTEN: &'static [$crate::row::RowField] = &[$(
                $crate::row::RowField { ty: stringify!($ty), attributes: &[$(stringify!($of_field)),*] },
            )*];
        }
    };
}

/// The types of these rows that were a `FieldValue` before there was a derive of it, and before it had more types of other crates.
/// An `Option` of one was too.
const BUILT_IN_BEFORE: [&str; 13] = [
    "bool",
    "u32",
    "i16",
    "i32",
    "i64",
    "f32",
    "String",
    "Vec<u8>",
    "IpAddr",
    "Uuid",
    "DateTime<Utc>",
    "DateTime<FixedOffset>",
    "NaiveDate",
];

impl RowField {
    /// Whether it needed neither `json` nor `with` nor an impl by hand before.
    pub(crate) fn was_plain(&self) -> bool {
        let ty = self.ty.replace(' ', "");
        let in_option = ty.strip_prefix("Option<").and_then(|ty| ty.strip_suffix('>'));
        BUILT_IN_BEFORE.contains(&in_option.unwrap_or(&ty))
    }

    /// Whether it has neither `json` nor `with`.
    pub(crate) fn is_plain(&self) -> bool {
        !self.words().any(|word| word == "json" || word == "with")
    }

    /// The words of its attributes of this library.
    fn words(&self) -> impl Iterator<Item = &'static str> {
        let lists = self
            .attributes
            .iter()
            .filter_map(|attribute| attribute.strip_prefix("cacheable")?.trim().strip_prefix('('));
        lists.flat_map(|list| list.split(',')).filter_map(|item| item.split(['=', '(', ')']).next()).map(str::trim)
    }
}

#[test]
fn fields_are_counted_as_they_are_written() {
    let plain = |attributes| RowField { ty: "Option < Tags >", attributes }.is_plain();
    assert!(plain(&[]) && plain(&["cacheable(rename = \"json\")", "doc = \"json\"", "serde(with = \"hex\")"]));
    assert!(!plain(&["cacheable(json)"]) && !plain(&["cacheable(rename = \"tags\", with = \"tags\")"]));
    assert!(!plain(&["cacheable (store, json)"]));
    let was_plain = |ty| RowField { ty, attributes: &[] }.was_plain();
    assert!(was_plain("String") && was_plain("Option < DateTime < Utc > >") && was_plain("Vec<u8>"));
    assert!(!was_plain("NaiveDateTime") && !was_plain("Vec<String>") && !was_plain("Option<UserId>"));
}
