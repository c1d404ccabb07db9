//! The rules for a struct as a whole, a function for each. Most are the same for a struct that derives `Cacheable` and for one
//! that derives `Embeddable`.

use proc_macro2::Ident;
use quote::ToTokens;
use syn::{Data, DataStruct, Fields};

use crate::attributes::{Given, StructAttributes, value};
use crate::distinct::{self, Named};
use crate::fields::AMBIGUOUS;
use crate::mistakes::Mistakes;
use crate::model::{Field, Record};
use crate::{field_type, names};

/// The longest tuple that the library accepts as an id.
const MAX_IDS: usize = 8;

/// The rules for a struct that derives `Cacheable`.
pub(crate) fn check(record: &Record, mistakes: &mut Mistakes) {
    has_named_fields(record, "Cacheable", mistakes);
    has_no_parameters(record, "Cacheable", mistakes);
    has_an_id(record, mistakes);
    ids_fit_a_tuple(record, mistakes);
    ids_are_plain(record, mistakes);
    check_fields(record, mistakes);
    other_versions_are_others(record, mistakes);
    entity_is_a_key_part(record, mistakes);
    not_found_ttl_is_shorter(record, mistakes);
}

/// The rules for a struct that derives `Embeddable`.
pub(crate) fn check_embeddable(record: &Record, mistakes: &mut Mistakes) {
    has_named_fields(record, "Embeddable", mistakes);
    has_no_parameters(record, "Embeddable", mistakes);
    check_fields(record, mistakes);
}

fn check_fields(record: &Record, mistakes: &mut Mistakes) {
    skipped_fields_are_plain(record, mistakes);
    embedded_fields_are_plain(record, mistakes);
    conversions_are_single(record, mistakes);
    types_have_one_text(record, mistakes);
    fields_that_serde_skips_are_decided(record, mistakes);
    serde_conversions_are_seen(record, mistakes);
    names_differ(record, mistakes);
}

fn has_named_fields(record: &Record, derive: &str, mistakes: &mut Mistakes) {
    let mistake = format!("`{derive}` can only be derived for a struct with named fields");
    match &record.original.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) if fields.named.is_empty() => {
                mistakes.add(&record.original.ident, format!("{mistake}: this one has nothing to store"));
            }
            Fields::Named(_) => {}
            Fields::Unnamed(fields) => {
                let advice = "write `{ name: Type }`; for a newtype derive `FieldValue`, and `CacheId` if it is an id";
                mistakes.add(fields, format!("{mistake}: {advice}"));
            }
            Fields::Unit => mistakes.add(&record.original.ident, format!("{mistake}: this one has nothing to store")),
        },
        Data::Enum(data) => {
            let advice = "derive `FieldValue` for an enum without data, and put it into a field of a struct; \
                          for one with data write `#[cacheable(json)]` on that field";
            mistakes.add(data.enum_token, format!("{mistake}: {advice}"));
        }
        Data::Union(data) => mistakes.add(data.union_token, mistake),
    }
}

fn has_no_parameters(record: &Record, derive: &str, mistakes: &mut Mistakes) {
    let generics = &record.original.generics;
    if !generics.params.is_empty() {
        let message = format!(
            "`{derive}` can't be derived for a struct with parameters: write one struct for each kind of record, which \
             owns its data (`String`, not `&str`)"
        );
        mistakes.add(generics, message);
    }
}

fn has_an_id(record: &Record, mistakes: &mut Mistakes) {
    if let (Some(singleton), Some(id)) = (&record.attributes.singleton, record.ids().next()) {
        let name = id.ident;
        let message = format!("a `singleton` has no id, but `{name}` is one: remove `singleton`, or the `id`");
        mistakes.add(&singleton.original, message);
    }
    let could_have_one = matches!(&record.original.data, Data::Struct(DataStruct { fields: Fields::Named(fields), .. }) if !fields.named.is_empty());
    let is_unclear = record.attributes.unclear || record.fields.iter().any(|field| field.attributes.unclear);
    if could_have_one && !is_unclear && !record.is_singleton() && record.ids().next().is_none() {
        let name = &record.original.ident;
        let message = format!(
            "`{name}` has no id: put `#[cacheable(id)]` on the field that identifies a record, or `#[cacheable(singleton)]` \
             on the struct if there is only one record"
        );
        mistakes.add(name, message);
    }
}

fn ids_fit_a_tuple(record: &Record, mistakes: &mut Mistakes) {
    for id in record.ids().skip(MAX_IDS) {
        mistakes.add(
            word(&id.attributes.id),
            format!("an id can have at most {MAX_IDS} fields: combine some of them into one text"),
        );
    }
}

fn ids_are_plain(record: &Record, mistakes: &mut Mistakes) {
    for id in record.ids() {
        let attributes = &id.attributes;
        let mut refuse = |word: Option<&Ident>, reason| {
            if let Some(word) = word {
                mistakes.add(word, format!("an id field can't be `{word}`: {reason}"));
            }
        };
        refuse(word(&attributes.skip), "it is always stored");
        refuse(word(&attributes.default), "it is never missing");
        refuse(word(&attributes.json), "it is stored as the same text as in the key");
        refuse(word(&attributes.with), "it is stored as the same text as in the key");
        refuse(word(&attributes.embed), "write `id` on each field that is a part of it");
    }
}

fn skipped_fields_are_plain(record: &Record, mistakes: &mut Mistakes) {
    let skipped = record.fields.iter().filter(|field| !field.is_stored() && !field.is_id());
    for field in skipped {
        let attributes = &field.attributes;
        let words = [
            word(&attributes.rename),
            word(&attributes.default),
            word(&attributes.json),
            word(&attributes.with),
            word(&attributes.embed),
            word(&attributes.store),
        ];
        for word in words.into_iter().flatten().chain(aliases(field)) {
            mistakes
                .add(word, format!("`{word}` has no effect on a field with `skip`, which isn't stored: remove one"));
        }
    }
}

fn embedded_fields_are_plain(record: &Record, mistakes: &mut Mistakes) {
    for field in record.stored().filter(|field| field.is_embedded() && !field.is_id()) {
        let attributes = &field.attributes;
        for word in [word(&attributes.rename)].into_iter().flatten().chain(aliases(field)) {
            let message = format!(
                "`{word}` has no effect on an embedded struct: write `embed(prefix = \"..\")`, or `{word}` on its own fields"
            );
            mistakes.add(word, message);
        }
        for word in [word(&attributes.default), word(&attributes.json), word(&attributes.with)].into_iter().flatten() {
            let message = format!("`{word}` has no effect on an embedded struct: write it on that struct's own fields");
            mistakes.add(word, message);
        }
    }
}

fn conversions_are_single(record: &Record, mistakes: &mut Mistakes) {
    for field in &record.fields {
        if let (Some(_), Some(with)) = (&field.attributes.json, word(&field.attributes.with)) {
            mistakes.add(with, "a field can't have both `json` and `with`: remove one");
        }
    }
}

/// `FieldValue` can't tell these cases apart, or has no impl on purpose.
fn types_have_one_text(record: &Record, mistakes: &mut Mistakes) {
    for field in record.stored().filter(|field| !field.is_converted() && !field.is_embedded()) {
        let ty = &field.original.ty;
        if field.in_option().is_some_and(|inner| field_type::in_option(inner).is_some()) {
            mistakes.add(ty, AMBIGUOUS);
        }
        if field_type::is_local_time(ty) {
            let message = "a `DateTime<Local>` depends on the time zone of the process that reads it: use `DateTime<Utc>`, or \
                           `DateTime<FixedOffset>` to keep the offset";
            mistakes.add(ty, message);
        }
    }
}

/// A field that serde never shows, such as the hash of a password, must not land in Redis unasked.
fn fields_that_serde_skips_are_decided(record: &Record, mistakes: &mut Mistakes) {
    for field in record.stored().filter(|field| !field.is_id() && field.attributes.store.is_none()) {
        if let Some(skip) = &field.attributes.serde.skip {
            let word = skip.to_token_stream();
            let message = format!(
                "serde leaves this field out by `{word}`: write `#[cacheable(skip)]` to leave it out of Redis too, or \
                 `#[cacheable(store)]` to store it there"
            );
            mistakes.add(skip, message);
        }
    }
}

fn serde_conversions_are_seen(record: &Record, mistakes: &mut Mistakes) {
    for field in record.stored().filter(|field| field.attributes.json.is_some() && field.attributes.store.is_none()) {
        if let Some(with) = &field.attributes.serde.with {
            let word = with.path().to_token_stream();
            let message = format!(
                "`{word}` of serde has no effect on `#[cacheable(json)]`, which stores the type's own JSON: write \
                 `#[cacheable(with = \"..\")]`, put the attribute on the field of a newtype, or write `#[cacheable(json, store)]` \
                 if that is meant"
            );
            mistakes.add(with, message);
        }
    }
}

/// The names of embedded fields are not known here: the expanded code compares them.
fn names_differ(record: &Record, mistakes: &mut Mistakes) {
    let stored = record.stored().filter(|field| !field.is_embedded());
    let named = stored.map(|field| {
        let Field { ident, attributes, .. } = field;
        Named { ident, name: field.name(), rename: attributes.rename.as_ref(), aliases: &attributes.aliases }
    });
    distinct::check("field", &named.collect::<Vec<_>>(), mistakes);
}

fn other_versions_are_others(record: &Record, mistakes: &mut Mistakes) {
    let StructAttributes { version, also_invalidates, unclear, .. } = &record.attributes;
    // If `version` is malformed, the struct's own version is unknown.
    let Some(own) = version.as_ref().map_or(Some(None), |version| version.value().map(|number| Some(*number))) else {
        return;
    };
    let listed = value(also_invalidates).into_iter().flatten();
    for version in listed.filter(|version| version.number == own && !unclear) {
        mistakes.add(&version.original, "this is the struct's own version, which is always invalidated: remove it");
    }
}

fn entity_is_a_key_part(record: &Record, mistakes: &mut Mistakes) {
    if record.attributes.entity.is_none() && !names::is_key_part(&record.entity()) {
        let name = &record.original.ident;
        let message = format!(
            "`{name}` has characters that an entity can't have: write `#[cacheable(entity = \"..\")]` on the struct"
        );
        mistakes.add(name, message);
    }
}

/// If only `not_found_ttl` is given, the expanded code compares it with the library's default for `ttl`.
fn not_found_ttl_is_shorter(record: &Record, mistakes: &mut Mistakes) {
    let StructAttributes { ttl, not_found_ttl, .. } = &record.attributes;
    if let (Some(ttl), Some(given), Some(not_found_ttl)) = (value(ttl), not_found_ttl, value(not_found_ttl))
        && not_found_ttl >= ttl
    {
        mistakes.add(given.argument(), "`not_found_ttl` must be shorter than `ttl`");
    }
}

fn aliases<'a>(field: &'a Field) -> impl Iterator<Item = &'a Ident> {
    field.attributes.aliases.iter().filter_map(|alias| alias.original.path().get_ident())
}

fn word<T>(given: &Option<Given<T>>) -> Option<&Ident> {
    given.as_ref().and_then(|given| given.original.path().get_ident())
}
