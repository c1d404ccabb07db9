//! The derive macros of [`cache-aside`](https://docs.rs/cache-aside). Use them through that crate, which documents them
//! at its traits `Cacheable`, `Embeddable`, `FieldValue` and `CacheId`.
//!
//! Each derive has three phases. It parses the input to a model that keeps the user's own tokens (`model` for structs of many
//! fields, `plain` for types that are one value, with `attributes` and `value`); checks the model (`rules`, `distinct`); and expands
//! it to code (a file for each derive, with `fields` and `handles`). Mistakes are collected on the way and reported together, each at
//! its token; a `stub` then takes the place of the code.

mod attributes;
mod cache_id;
mod cacheable;
mod case;
mod distinct;
mod duration;
mod embeddable;
mod field_type;
mod field_value;
mod fields;
mod handles;
mod mistakes;
mod model;
mod names;
mod nearest;
mod plain;
mod rules;
mod stub;
mod tokens;
mod value;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Implements `Cacheable` for a struct with named fields, and gives it the constant `FIELDS`.
#[proc_macro_derive(Cacheable, attributes(cacheable))]
pub fn cacheable(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    cacheable::cacheable(&input).into()
}

/// Implements `Embeddable` for a struct with named fields, which can then be a field with `#[cacheable(embed)]`.
///
/// The fields have the attributes of `Cacheable`, except for `id`; the struct has `rename_all` and `crate`.
#[proc_macro_derive(Embeddable, attributes(cacheable))]
pub fn embeddable(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    embeddable::embeddable(&input).into()
}

/// Implements `FieldValue` for a newtype, which is stored as the value that it wraps, and for an enum without data, whose variants
/// are stored as their names. A newtype is a struct with one field, with or without a name, and any number of `PhantomData`.
///
/// | attribute of the enum | meaning |
/// |---|---|
/// | `rename_all = "snake_case"` | the variants' texts, by the rules of serde: `lowercase`, `UPPERCASE`, `PascalCase`, `camelCase`, `snake_case`, `SCREAMING_SNAKE_CASE`, `kebab-case`, `SCREAMING-KEBAB-CASE` |
/// | `crate = path` | the path of `cache_aside` (also for newtypes) |
///
/// | attribute of a variant | meaning |
/// |---|---|
/// | `rename = "gone"` | its text |
/// | `alias = "deleted"` | another text that it is read from; may be given several times |
/// | `other` | it also stands for every unknown text. An update of a record that has such a text deletes the entry. Without it, an unknown text makes the entry unreadable, which is a miss |
#[proc_macro_derive(FieldValue, attributes(cacheable))]
pub fn field_value(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    field_value::field_value(&input).into()
}

/// Implements `CacheId` for a newtype around an id, and for an enum without data. Calls also accept what the newtype wraps as
/// an id.
///
/// An id is also stored as a field: derive `FieldValue` too. The attributes are the same.
#[proc_macro_derive(CacheId, attributes(cacheable))]
pub fn cache_id(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    cache_id::cache_id(&input).into()
}
