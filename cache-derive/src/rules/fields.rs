//! The rules for the fields of a struct.

use quote::ToTokens;
use syn::Ident;

use super::word;
use crate::distinct::{self, Named};
use crate::field_type;
use crate::fields::AMBIGUOUS;
use crate::mistakes::Mistakes;
use crate::model::{Field, Record};

pub(super) fn check(record: &Record, mistakes: &mut Mistakes) {
    skipped_fields_are_plain(record, mistakes);
    embedded_fields_are_plain(record, mistakes);
    conversions_are_single(record, mistakes);
    types_have_one_text(record, mistakes);
    fields_that_serde_skips_are_decided(record, mistakes);
    serde_conversions_are_seen(record, mistakes);
    names_differ(record, mistakes);
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
    for field in record.stored().filter(|field| field.attributes.store.is_none()) {
        if let Some(skip) = &field.attributes.serde.skip {
            let word = skip.to_token_stream();
            let message = match field.is_id() {
                true => format!(
                    "serde leaves this id out by `{word}`: write `#[cacheable(store)]`, as an id is stored in Redis"
                ),
                false => format!(
                    "serde leaves this field out by `{word}`: write `#[cacheable(skip)]` to leave it out of Redis too, or \
                     `#[cacheable(store)]` to store it there"
                ),
            };
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

fn aliases<'a>(field: &'a Field) -> impl Iterator<Item = &'a Ident> {
    field.attributes.aliases.iter().filter_map(|alias| alias.original.path().get_ident())
}
