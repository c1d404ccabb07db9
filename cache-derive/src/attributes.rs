//! The attributes `#[cacheable(..)]` of a struct and of a field, as structs of options.
//!
//! Checks that concern a single attribute are made here: its name, its place, its value, and that it is given once.

use quote::ToTokens;
use syn::punctuated::Punctuated;
use syn::{Attribute, Error, Meta, Path, Result, Token};

use crate::mistakes::Mistakes;
use crate::nearest::nearest;
use crate::value::{self, Version};

const OF_STRUCTS: &[&str] = &[
    "namespace",
    "entity",
    "ttl",
    "not_found_ttl",
    "stale_if_error",
    "stale_retry",
    "refresh_ahead",
    "version",
    "also_invalidates",
    "crate",
];
const OF_FIELDS: &[&str] = &["id", "rename", "alias", "default", "skip", "json", "with"];

const SYNTAX: &str = "attributes are written `#[cacheable(word, name = value)]`";

/// The attributes of a newtype that derives `CacheId`.
const OF_NEWTYPES: &[&str] = &["crate"];

#[derive(Default)]
pub(crate) struct StructAttributes {
    pub(crate) namespace: Option<Given<String>>,
    pub(crate) entity: Option<Given<String>>,
    pub(crate) ttl: Option<Given<u64>>,
    pub(crate) not_found_ttl: Option<Given<u64>>,
    pub(crate) stale_if_error: Option<Given<u64>>,
    pub(crate) stale_retry: Option<Given<u64>>,
    /// `None` for the library's default.
    pub(crate) refresh_ahead: Option<Given<Option<f64>>>,
    pub(crate) version: Option<Given<u32>>,
    pub(crate) also_invalidates: Option<Given<Vec<Version>>>,
    pub(crate) krate: Option<Given<Path>>,
    /// Whether an attribute could not be understood. It may be one that seems to be missing, so that is no mistake
    /// then.
    pub(crate) unclear: bool,
}

#[derive(Default)]
pub(crate) struct FieldAttributes {
    pub(crate) id: Option<Given<()>>,
    pub(crate) rename: Option<Given<String>>,
    /// May be given several times.
    pub(crate) aliases: Vec<Given<String>>,
    pub(crate) default: Option<Given<()>>,
    pub(crate) skip: Option<Given<()>>,
    pub(crate) json: Option<Given<()>>,
    pub(crate) with: Option<Given<Path>>,
    /// As for structs.
    pub(crate) unclear: bool,
}

/// An attribute that was given.
pub(crate) struct Given<T> {
    pub(crate) original: Meta,
    /// `None` if it is malformed, which was then added to the mistakes.
    value: Option<T>,
}

impl<T> Given<T> {
    /// The attribute as it was read, and the mistake in it, if there is one.
    fn new(original: Meta, read: impl FnOnce(&Meta) -> Result<T>) -> (Self, Result<()>) {
        let (value, result) = match read(&original) {
            Ok(value) => (Some(value), Ok(())),
            Err(mistake) => (None, Err(mistake)),
        };
        (Self { original, value }, result)
    }

    /// The value, if it is well-formed.
    pub(crate) fn value(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// The tokens after the `=`.
    pub(crate) fn argument(&self) -> &dyn ToTokens {
        match &self.original {
            Meta::NameValue(meta) => &meta.value,
            other => other,
        }
    }
}

/// The value of an attribute, if it is given and well-formed.
pub(crate) fn value<T>(given: &Option<Given<T>>) -> Option<&T> {
    given.as_ref().and_then(Given::value)
}

impl StructAttributes {
    pub(crate) fn read(attributes: &[Attribute], mistakes: &mut Mistakes) -> Self {
        let (items, unclear) = items(attributes, mistakes);
        let mut read = Self { unclear, ..Self::default() };
        for item in items {
            let result = match value::word(&item).as_str() {
                "namespace" => set(&mut read.namespace, item, value::key_part),
                "entity" => set(&mut read.entity, item, value::key_part),
                "ttl" => set(&mut read.ttl, item, value::millis),
                "not_found_ttl" => set(&mut read.not_found_ttl, item, value::millis),
                "stale_if_error" => set(&mut read.stale_if_error, item, value::millis),
                "stale_retry" => set(&mut read.stale_retry, item, value::millis),
                "refresh_ahead" => set(&mut read.refresh_ahead, item, value::beta),
                "version" => set(&mut read.version, item, value::version),
                "also_invalidates" => set(&mut read.also_invalidates, item, value::versions),
                "crate" => set(&mut read.krate, item, value::crate_path),
                word => {
                    read.unclear = true;
                    Err(unknown(&item, word, OF_STRUCTS, OF_FIELDS, "on a field, not on the struct"))
                }
            };
            mistakes.sift(result);
        }
        read
    }

    /// Reads the attributes of a newtype, which can only give the path of the crate.
    pub(crate) fn read_newtype(attributes: &[Attribute], mistakes: &mut Mistakes) -> Self {
        let mut read = Self::default();
        for item in items(attributes, mistakes).0 {
            let result = match value::word(&item).as_str() {
                "crate" => set(&mut read.krate, item, value::crate_path),
                word => Err(unknown(&item, word, OF_NEWTYPES, OF_STRUCTS, "on a struct that derives `Cacheable`")),
            };
            mistakes.sift(result);
        }
        read
    }
}

impl FieldAttributes {
    pub(crate) fn read(attributes: &[Attribute], mistakes: &mut Mistakes) -> Self {
        let (items, unclear) = items(attributes, mistakes);
        let mut read = Self { unclear, ..Self::default() };
        for item in items {
            let result = match value::word(&item).as_str() {
                "id" => set(&mut read.id, item, value::none),
                "rename" => set(&mut read.rename, item, value::field_name),
                "alias" => add(&mut read.aliases, item, value::field_name),
                "default" => set(&mut read.default, item, value::none),
                "skip" => set(&mut read.skip, item, value::none),
                "json" => set(&mut read.json, item, value::json),
                "with" => set(&mut read.with, item, value::module),
                word => {
                    read.unclear = true;
                    Err(unknown(&item, word, OF_FIELDS, OF_STRUCTS, "on the struct, not on a field"))
                }
            };
            mistakes.sift(result);
        }
        read
    }
}

/// The attributes `#[cacheable(..)]`.
pub(crate) fn of_crate(attributes: &[Attribute]) -> impl Iterator<Item = &Attribute> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cacheable"))
}

/// All items in `#[cacheable(..)]`, and whether some of them could not be parsed.
fn items(attributes: &[Attribute], mistakes: &mut Mistakes) -> (Vec<Meta>, bool) {
    let mut items = Vec::new();
    let mut unclear = false;
    for attribute in of_crate(attributes) {
        let list = match &attribute.meta {
            Meta::List(list) => {
                let list = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
                list.map_err(|mistake| Error::new(mistake.span(), format!("{mistake}: {SYNTAX}")))
            }
            other => Err(Error::new_spanned(other, SYNTAX)),
        };
        match mistakes.sift(list) {
            Some(list) => items.extend(list),
            None => unclear = true,
        }
    }
    (items, unclear)
}

fn set<T>(slot: &mut Option<Given<T>>, original: Meta, read: impl FnOnce(&Meta) -> Result<T>) -> Result<()> {
    if slot.is_some() {
        let message = format!("`{}` is given twice: remove one", value::word(&original));
        return Err(Error::new_spanned(original, message));
    }
    let (given, result) = Given::new(original, read);
    *slot = Some(given);
    result
}

/// For an attribute that may be given several times.
fn add<T>(list: &mut Vec<Given<T>>, original: Meta, read: impl FnOnce(&Meta) -> Result<T>) -> Result<()> {
    let (given, result) = Given::new(original, read);
    list.push(given);
    result
}

fn unknown(item: &Meta, word: &str, known: &[&str], elsewhere: &[&str], place: &str) -> Error {
    let message = if elsewhere.contains(&word) {
        format!("`{word}` belongs {place}")
    } else if let Some(nearest) = nearest(word, known) {
        format!("unknown attribute `{word}`; did you mean `{nearest}`?")
    } else {
        format!("unknown attribute `{word}`; expected one of `{}`", known.join("`, `"))
    };
    Error::new_spanned(item.path(), message)
}
