//! The types that are one value of a hash: newtypes, and enums without data.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::{Data, DataEnum, DeriveInput, Fields, Ident, Path, Type};

use crate::attributes::{self, Given, OF_ENUMS, OF_NEWTYPES, StructAttributes, VariantAttributes, value};
use crate::distinct::{self, Named};
use crate::mistakes::Mistakes;

/// A type that derives `FieldValue` or `CacheId`.
pub(crate) enum Plain<'a> {
    /// The type that it wraps.
    Newtype(&'a Type),
    Variants(Vec<Variant<'a>>),
}

pub(crate) struct Variant<'a> {
    pub(crate) ident: &'a Ident,
    /// The stored text.
    pub(crate) text: String,
    attributes: VariantAttributes,
}

impl<'a> Plain<'a> {
    /// Reads a type, and the path of the library. `None` after a mistake that leaves nothing to work with.
    pub(crate) fn read(input: &'a DeriveInput, derive: &str, mistakes: &mut Mistakes) -> (Option<Self>, TokenStream) {
        let known = if let Data::Enum(_) = input.data { OF_ENUMS } else { OF_NEWTYPES };
        let attributes = StructAttributes::read(&input.attrs, known, mistakes);
        let library = value(&attributes.krate).map_or_else(|| quote!(::cache_aside), Path::to_token_stream);
        let plain = match &input.data {
            Data::Enum(data) => Some(Self::Variants(variants(data, &attributes, input, derive, mistakes))),
            _ => wrapped(input, derive, mistakes).map(Self::Newtype),
        };
        (plain, library)
    }
}

impl Variant<'_> {
    /// The texts that it is read from, besides its own.
    pub(crate) fn aliases(&self) -> impl Iterator<Item = &str> {
        self.attributes.aliases.iter().filter_map(Given::value).map(String::as_str)
    }

    /// Whether it stands for all unknown texts.
    pub(crate) fn is_other(&self) -> bool {
        self.attributes.other.is_some()
    }
}

/// The type of the one field.
fn wrapped<'a>(input: &'a DeriveInput, derive: &str, mistakes: &mut Mistakes) -> Option<&'a Type> {
    let name = &input.ident;
    if let Data::Struct(data) = &input.data
        && let Fields::Unnamed(fields) = &data.fields
        && let Some(field) = fields.unnamed.first()
        && fields.unnamed.len() == 1
    {
        for attribute in attributes::of_crate(&field.attrs) {
            let message =
                format!("the field of a newtype that derives `{derive}` can't have attributes: remove this one");
            mistakes.add(attribute, message);
        }
        return Some(&field.ty);
    }
    let message = format!(
        "`{derive}` can only be derived for a newtype, such as `struct {name}(String);`, or for an enum without data"
    );
    mistakes.add(name, message);
    None
}

fn variants<'a>(
    data: &'a DataEnum,
    attributes: &StructAttributes,
    input: &'a DeriveInput,
    derive: &str,
    mistakes: &mut Mistakes,
) -> Vec<Variant<'a>> {
    if data.variants.is_empty() {
        mistakes
            .add(&input.ident, format!("`{derive}` can't be derived for an enum without variants: it has no value"));
    }
    let case = value(&attributes.rename_all).copied();
    let mut variants: Vec<Variant> = Vec::new();
    for variant in &data.variants {
        if !variant.fields.is_empty() {
            let message = format!(
                "`{derive}` can only be derived for an enum without data: for this one write `#[cacheable(json)]` on the field \
                 that has it"
            );
            mistakes.add(&variant.fields, message);
        }
        let attributes = VariantAttributes::read(&variant.attrs, mistakes);
        let name = variant.ident.unraw().to_string();
        let text = match value(&attributes.rename) {
            Some(text) => text.clone(),
            None => case.map_or_else(|| name.clone(), |case| case.of_variant(&name)),
        };
        variants.push(Variant { ident: &variant.ident, text, attributes });
    }
    texts_differ(&variants, mistakes);
    others_are_one(&variants, mistakes);
    variants
}

fn texts_differ(variants: &[Variant], mistakes: &mut Mistakes) {
    let named = variants.iter().map(|Variant { ident, text, attributes }| Named {
        ident,
        name: text.as_str().into(),
        rename: attributes.rename.as_ref(),
        aliases: &attributes.aliases,
    });
    let variants: Vec<_> = named.collect();
    distinct::check("variant", &variants, mistakes);
}

fn others_are_one(variants: &[Variant], mistakes: &mut Mistakes) {
    let others = variants.iter().filter_map(|variant| variant.attributes.other.as_ref());
    for other in others.skip(1) {
        mistakes.add(&other.original, "only one variant can be `other`: remove one");
    }
}
