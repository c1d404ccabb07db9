//! The rules for a type as a whole, a function for each. Most are the same for a struct that derives `Cacheable` and for one that
//! derives `Embeddable`; `fields` has those for their fields.

mod fields;

use syn::{Data, DataStruct, Fields, Ident};

use crate::attributes::{self, Given, StructAttributes, value};
use crate::distinct::{self, Named};
use crate::mistakes::Mistakes;
use crate::model::Record;
use crate::names;
use crate::plain::{Newtype, Plain, Shape, Variant};

/// The longest tuple that the library accepts as an id.
const MAX_IDS: usize = 8;

/// The rules for a struct that derives `Cacheable`.
pub(crate) fn check(record: &Record, mistakes: &mut Mistakes) {
    has_named_fields(record, "Cacheable", mistakes);
    has_no_parameters(record, "Cacheable", mistakes);
    has_an_id(record, mistakes);
    ids_fit_a_tuple(record, mistakes);
    ids_are_plain(record, mistakes);
    fields::check(record, mistakes);
    other_versions_are_others(record, mistakes);
    entity_is_a_key_part(record, mistakes);
    not_found_ttl_is_shorter(record, mistakes);
}

/// The rules for a struct that derives `Embeddable`.
pub(crate) fn check_embeddable(record: &Record, mistakes: &mut Mistakes) {
    has_named_fields(record, "Embeddable", mistakes);
    has_no_parameters(record, "Embeddable", mistakes);
    fields::check(record, mistakes);
}

/// The rules for a type that derives `FieldValue` or `CacheId`.
pub(crate) fn check_plain(plain: &Plain, mistakes: &mut Mistakes) {
    let (name, derive) = (&plain.original.ident, plain.derive);
    match &plain.shape {
        Shape::Newtype(newtype) => newtype_has_no_attributes(newtype, derive, mistakes),
        Shape::Variants(variants) => {
            if variants.is_empty() {
                mistakes
                    .add(name, format!("`{derive}` can't be derived for an enum without variants: it has no value"));
            }
            variants_have_no_data(variants, derive, mistakes);
            texts_differ(variants, mistakes);
            one_variant_is_other(variants, mistakes);
        }
        Shape::Other => {
            let message = format!(
                "`{derive}` can only be derived for a newtype, such as `struct {name}(String);`, or for an enum without data"
            );
            mistakes.add(name, message);
        }
    }
}

/// Each kind of id needs a type of its own, so that they can't be mixed up.
pub(crate) fn plain_has_no_parameters(plain: &Plain, mistakes: &mut Mistakes) {
    let generics = &plain.original.generics;
    if !generics.params.is_empty() {
        let derive = plain.derive;
        let message =
            format!("`{derive}` can't be derived for a type with parameters: write one newtype for each kind of id");
        mistakes.add(generics, message);
    }
}

fn newtype_has_no_attributes(newtype: &Newtype, derive: &str, mistakes: &mut Mistakes) {
    for attribute in newtype.fields.iter().flat_map(|field| attributes::of_crate(&field.attrs)) {
        let message = format!("the field of a newtype that derives `{derive}` can't have attributes: remove this one");
        mistakes.add(attribute, message);
    }
}

fn variants_have_no_data(variants: &[Variant], derive: &str, mistakes: &mut Mistakes) {
    for Variant { original, .. } in variants.iter().filter(|variant| !variant.original.fields.is_empty()) {
        let message = format!(
            "`{derive}` can only be derived for an enum without data: for this one write `#[cacheable(json)]` on the field \
             that has it"
        );
        mistakes.add(&original.fields, message);
    }
}

fn texts_differ(variants: &[Variant], mistakes: &mut Mistakes) {
    let named = variants.iter().map(|Variant { original, text, attributes }| Named {
        ident: &original.ident,
        name: text.as_str().into(),
        rename: attributes.rename.as_ref(),
        aliases: &attributes.aliases,
    });
    distinct::check("variant", &named.collect::<Vec<_>>(), mistakes);
}

fn one_variant_is_other(variants: &[Variant], mistakes: &mut Mistakes) {
    let others = variants.iter().filter_map(|variant| variant.attributes.other.as_ref());
    for other in others.skip(1) {
        mistakes.add(&other.original, "only one variant can be `other`: remove one");
    }
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

fn word<T>(given: &Option<Given<T>>) -> Option<&Ident> {
    given.as_ref().and_then(|given| given.original.path().get_ident())
}
