//! The attributes `#[cacheable(..)]` of a type, a field and a variant, as structs of options; and those of serde that matter
//! here.
//!
//! Checks that concern a single attribute are made here: its name, its place, its value, and that it is given once.

use quote::ToTokens;
use syn::punctuated::Punctuated;
use syn::{Attribute, Error, Meta, Path, Result, Token};

use crate::case::Case;
use crate::mistakes::Mistakes;
use crate::nearest::nearest;
use crate::value::{self, Version};

const SYNTAX: &str = "attributes are written `#[cacheable(word, name = value)]`";

/// The attributes that one kind of item may have.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    words: &'static [&'static str],
    item: &'static str,
}

/// A struct that derives `Cacheable`.
pub(crate) const OF_RECORDS: Known = Known {
    words: &[
        "namespace",
        "entity",
        "ttl",
        "not_found_ttl",
        "stale_if_error",
        "stale_retry",
        "stale_while_revalidate",
        "soft_timeout",
        "refresh_ahead",
        "version",
        "also_invalidates",
        "crate",
        "rename_all",
        "singleton",
    ],
    item: "on the struct",
};

/// A struct that derives `Embeddable`.
pub(crate) const OF_EMBEDDED: Known =
    Known { words: &["rename_all", "crate"], item: "on a struct that derives `Embeddable`" };

/// A newtype that derives `FieldValue` or `CacheId`.
pub(crate) const OF_NEWTYPES: Known = Known { words: &["crate"], item: "on a newtype" };

/// An enum that derives `FieldValue` or `CacheId`.
pub(crate) const OF_ENUMS: Known = Known { words: &["rename_all", "crate"], item: "on the enum" };

/// A field of a struct that derives `Cacheable`.
pub(crate) const OF_FIELDS: Known = Known {
    words: &["id", "rename", "alias", "default", "skip", "json", "with", "embed", "store"],
    item: "on a field",
};

/// A field of a struct that derives `Embeddable`.
pub(crate) const OF_EMBEDDED_FIELDS: Known = Known {
    words: &["rename", "alias", "default", "skip", "json", "with", "embed", "store"],
    item: "on a field of one that derives `Embeddable`",
};

const OF_VARIANTS: Known = Known { words: &["rename", "alias", "other"], item: "on a variant" };

const OF_EMBED: Known = Known { words: &["prefix"], item: "within `embed`" };

/// Where each attribute belongs.
const PLACES: &[(&[&str], &str)] = &[
    (&["rename_all"], "on a struct that derives `Cacheable` or `Embeddable`, or on an enum"),
    (OF_RECORDS.words, "on a struct that derives `Cacheable`"),
    (&["id"], "on a field of a struct that derives `Cacheable`"),
    (&["rename", "alias"], "on a field or a variant"),
    (&["other"], "on a variant of an enum"),
    (&["prefix"], "within `embed`"),
    (OF_FIELDS.words, "on a field"),
];

#[derive(Default)]
pub(crate) struct StructAttributes {
    pub(crate) namespace: Option<Given<String>>,
    pub(crate) entity: Option<Given<String>>,
    pub(crate) ttl: Option<Given<u64>>,
    pub(crate) not_found_ttl: Option<Given<u64>>,
    pub(crate) stale_if_error: Option<Given<u64>>,
    pub(crate) stale_retry: Option<Given<u64>>,
    pub(crate) stale_while_revalidate: Option<Given<u64>>,
    pub(crate) soft_timeout: Option<Given<u64>>,
    /// `None` for the library's default.
    pub(crate) refresh_ahead: Option<Given<Option<f64>>>,
    pub(crate) version: Option<Given<u32>>,
    pub(crate) also_invalidates: Option<Given<Vec<Version>>>,
    pub(crate) krate: Option<Given<Path>>,
    pub(crate) rename_all: Option<Given<Case>>,
    pub(crate) singleton: Option<Given<()>>,
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
    /// The prefix, if one is given.
    pub(crate) embed: Option<Given<Option<String>>>,
    pub(crate) store: Option<Given<()>>,
    pub(crate) serde: SerdeAttributes,
    /// As for structs.
    pub(crate) unclear: bool,
}

/// The attributes of a variant.
#[derive(Default)]
pub(crate) struct VariantAttributes {
    pub(crate) rename: Option<Given<String>>,
    /// May be given several times.
    pub(crate) aliases: Vec<Given<String>>,
    pub(crate) other: Option<Given<()>>,
}

/// The attributes of serde on a field that say something about the cache too.
#[derive(Default)]
pub(crate) struct SerdeAttributes {
    /// `skip`, `skip_serializing` or `skip_deserializing`.
    pub(crate) skip: Option<Meta>,
    /// `with`, `serialize_with` or `deserialize_with`.
    pub(crate) with: Option<Meta>,
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
    pub(crate) fn read(attributes: &[Attribute], known: Known, mistakes: &mut Mistakes) -> Self {
        let (items, unclear) = items(attributes, mistakes);
        let mut read = Self { unclear, ..Self::default() };
        for item in items {
            let result = match known.word(&item).as_str() {
                "namespace" => set(&mut read.namespace, item, value::key_part),
                "entity" => set(&mut read.entity, item, value::key_part),
                "ttl" => set(&mut read.ttl, item, value::millis),
                "not_found_ttl" => set(&mut read.not_found_ttl, item, value::millis),
                "stale_if_error" => set(&mut read.stale_if_error, item, value::millis),
                "stale_retry" => set(&mut read.stale_retry, item, value::millis),
                "stale_while_revalidate" => set(&mut read.stale_while_revalidate, item, value::millis),
                "soft_timeout" => set(&mut read.soft_timeout, item, value::millis),
                "refresh_ahead" => set(&mut read.refresh_ahead, item, value::beta),
                "version" => set(&mut read.version, item, value::version),
                "also_invalidates" => set(&mut read.also_invalidates, item, value::versions),
                "crate" => set(&mut read.krate, item, value::crate_path),
                "rename_all" => set(&mut read.rename_all, item, value::case),
                "singleton" => set(&mut read.singleton, item, value::none),
                _ => {
                    read.unclear = true;
                    Err(known.refuse(&item))
                }
            };
            mistakes.sift(result);
        }
        read
    }
}

impl FieldAttributes {
    pub(crate) fn read(attributes: &[Attribute], known: Known, mistakes: &mut Mistakes) -> Self {
        let (items, unclear) = items(attributes, mistakes);
        let mut read = Self { unclear, serde: SerdeAttributes::read(attributes), ..Self::default() };
        for item in items {
            let result = match known.word(&item).as_str() {
                "id" => set(&mut read.id, item, value::none),
                "rename" => set(&mut read.rename, item, value::field_name),
                "alias" => add(&mut read.aliases, item, value::field_name),
                "default" => set(&mut read.default, item, value::none),
                "skip" => set(&mut read.skip, item, value::none),
                "json" => set(&mut read.json, item, value::json),
                "with" => set(&mut read.with, item, value::module),
                "embed" => set(&mut read.embed, item, prefix),
                "store" => set(&mut read.store, item, value::none),
                _ => {
                    read.unclear = true;
                    Err(known.refuse(&item))
                }
            };
            mistakes.sift(result);
        }
        read
    }
}

impl VariantAttributes {
    pub(crate) fn read(attributes: &[Attribute], mistakes: &mut Mistakes) -> Self {
        let mut read = Self::default();
        for item in items(attributes, mistakes).0 {
            let result = match OF_VARIANTS.word(&item).as_str() {
                "rename" => set(&mut read.rename, item, value::variant_text),
                "alias" => add(&mut read.aliases, item, value::variant_text),
                "other" => set(&mut read.other, item, value::none),
                _ => Err(OF_VARIANTS.refuse(&item)),
            };
            mistakes.sift(result);
        }
        read
    }
}

impl SerdeAttributes {
    /// Whatever can't be understood here is serde's own to report.
    fn read(attributes: &[Attribute]) -> Self {
        let mut read = Self::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
            let items = attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
            for item in items.into_iter().flatten() {
                match value::word(&item).as_str() {
                    "skip" | "skip_serializing" | "skip_deserializing" => read.skip = Some(item),
                    "with" | "serialize_with" | "deserialize_with" => read.with = Some(item),
                    _ => {}
                }
            }
        }
        read
    }
}

/// The prefix in `embed(prefix = "..")`, if there is one.
fn prefix(meta: &Meta) -> Result<Option<String>> {
    let list = match meta {
        Meta::Path(_) => return Ok(None),
        Meta::List(list) => list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)?,
        Meta::NameValue(_) => {
            return Err(Error::new_spanned(meta, "write `embed`, or `embed(prefix = \"..\")` with another prefix"));
        }
    };
    let mut given = None;
    let mut mistakes = Mistakes::default();
    for item in list {
        let result = match OF_EMBED.word(&item).as_str() {
            "prefix" => set(&mut given, item, value::prefix),
            _ => Err(OF_EMBED.refuse(&item)),
        };
        mistakes.sift(result);
    }
    mistakes.into_error().map_or_else(|| Ok(value(&given).cloned()), Err)
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

impl Known {
    /// The attribute's name, or nothing if the item can't have it.
    fn word(self, item: &Meta) -> String {
        Some(value::word(item)).filter(|word| self.words.contains(&word.as_str())).unwrap_or_default()
    }

    fn refuse(self, item: &Meta) -> Error {
        let word = value::word(item);
        let place = PLACES.iter().find(|(words, _)| words.contains(&word.as_str())).map(|(_, place)| place);
        let message = if let Some(place) = place {
            format!("`{word}` belongs {place}, not {}", self.item)
        } else if let Some(nearest) = nearest(&word, self.words) {
            format!("unknown attribute `{word}`; did you mean `{nearest}`?")
        } else {
            format!("unknown attribute `{word}`; expected one of `{}`", self.words.join("`, `"))
        };
        Error::new_spanned(item.path(), message)
    }
}
