//! The derive macros of [`cache-aside`](https://docs.rs/cache-aside). Use them through that crate, which documents them
//! at its traits `Cacheable` and `CacheId`.
//!
//! Each derive has three phases: it parses the input to a model that keeps the user's own tokens, checks the model, and
//! expands it to code. Mistakes are collected on the way and reported together, each at its token.

mod attributes;
mod cache_id;
mod duration;
mod expand;
mod mistakes;
mod model;
mod names;
mod nearest;
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
    expand::cacheable(&input).into()
}

/// Implements `CacheId` and `FieldValue` for a newtype around an id.
///
/// The struct may have the attribute `#[cacheable(crate = path)]`.
#[proc_macro_derive(CacheId, attributes(cacheable))]
pub fn cache_id(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    cache_id::cache_id(&input).into()
}
