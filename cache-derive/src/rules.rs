//! The rules for a struct as a whole, a function for each.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use proc_macro2::Ident;
use syn::{Data, DataStruct, Fields};

use crate::attributes::{Given, StructAttributes, value};
use crate::mistakes::Mistakes;
use crate::model::Record;
use crate::names;

/// The longest tuple that the library accepts as an id.
const MAX_IDS: usize = 8;

pub(crate) fn check(record: &Record, mistakes: &mut Mistakes) {
    has_named_fields(record, mistakes);
    has_no_parameters(record, mistakes);
    has_an_id(record, mistakes);
    ids_fit_a_tuple(record, mistakes);
    ids_are_plain(record, mistakes);
    skipped_fields_are_plain(record, mistakes);
    conversions_are_single(record, mistakes);
    names_differ(record, mistakes);
    aliases_lead_to_one_field(record, mistakes);
    other_versions_are_others(record, mistakes);
    entity_is_a_key_part(record, mistakes);
    not_found_ttl_is_shorter(record, mistakes);
}

fn has_named_fields(record: &Record, mistakes: &mut Mistakes) {
    const MISTAKE: &str = "`Cacheable` can only be derived for a struct with named fields";

    match &record.original.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(_) => {}
            Fields::Unnamed(fields) => {
                let advice = "write `{ name: Type }`; for a newtype that is an id derive `CacheId`";
                mistakes.add(fields, format!("{MISTAKE}: {advice}"));
            }
            Fields::Unit => mistakes.add(&record.original.ident, format!("{MISTAKE}: this one has nothing to store")),
        },
        Data::Enum(data) => {
            let advice = "put the enum into a field of a struct, with `#[cacheable(json)]`";
            mistakes.add(data.enum_token, format!("{MISTAKE}: {advice}"));
        }
        Data::Union(data) => mistakes.add(data.union_token, MISTAKE),
    }
}

fn has_no_parameters(record: &Record, mistakes: &mut Mistakes) {
    let generics = &record.original.generics;
    if !generics.params.is_empty() {
        let message = "`Cacheable` can't be derived for a struct with parameters: write one struct for each kind of \
                       record, which owns its data (`String`, not `&str`)";
        mistakes.add(generics, message);
    }
}

fn has_an_id(record: &Record, mistakes: &mut Mistakes) {
    let could_have_one = matches!(&record.original.data, Data::Struct(DataStruct { fields: Fields::Named(_), .. }));
    let is_unclear = record.attributes.unclear || record.fields.iter().any(|field| field.attributes.unclear);
    if could_have_one && !is_unclear && record.ids().next().is_none() {
        let name = &record.original.ident;
        mistakes.add(name, format!("`{name}` has no id: put `#[cacheable(id)]` on the field that identifies a record"));
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
    }
}

fn skipped_fields_are_plain(record: &Record, mistakes: &mut Mistakes) {
    let skipped = record.fields.iter().filter(|field| !field.is_stored() && !field.is_id());
    for field in skipped {
        let attributes = &field.attributes;
        let words =
            [word(&attributes.rename), word(&attributes.default), word(&attributes.json), word(&attributes.with)];
        let aliases = attributes.aliases.iter().filter_map(|alias| alias.original.path().get_ident());
        for word in words.into_iter().flatten().chain(aliases) {
            mistakes
                .add(word, format!("`{word}` has no effect on a field with `skip`, which isn't stored: remove one"));
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

fn names_differ(record: &Record, mistakes: &mut Mistakes) {
    let mut taken = HashMap::new();
    for field in record.stored() {
        let ident = field.ident;
        match taken.entry(field.name()) {
            Entry::Vacant(free) => {
                free.insert(ident);
            }
            Entry::Occupied(first) => {
                let (name, first) = (first.key(), first.get());
                let message = format!("the field `{first}` is already stored as `{name}`: choose another `rename`");
                match &field.attributes.rename {
                    Some(rename) => mistakes.add(rename.argument(), message),
                    None => mistakes.add(ident, message),
                }
            }
        }
    }
}

fn aliases_lead_to_one_field(record: &Record, mistakes: &mut Mistakes) {
    let mut taken = HashMap::new();
    for field in record.stored() {
        taken.entry(field.name()).or_insert((field.ident, true));
    }
    for field in record.stored() {
        let ident = field.ident;
        for alias in &field.attributes.aliases {
            let Some(name) = alias.value() else { continue };
            let message = match taken.entry(Cow::Borrowed(name.as_str())) {
                Entry::Vacant(free) => {
                    free.insert((ident, false));
                    continue;
                }
                Entry::Occupied(first) => match first.get() {
                    (first, true) if *first == ident => {
                        format!("`{name}` is the field's own name: remove this `alias`")
                    }
                    (first, false) if *first == ident => format!("the alias `{name}` is given twice: remove one"),
                    (first, true) => format!("the field `{first}` is stored as `{name}`: choose another `alias`"),
                    (first, false) => {
                        format!("the field `{first}` is already read from `{name}`: choose another `alias`")
                    }
                },
            };
            mistakes.add(alias.argument(), message);
        }
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
