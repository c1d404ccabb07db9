//! The types that are one value of a hash: newtypes, and enums without data.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::{Data, DataEnum, DeriveInput, Field, Ident, Member, Path, Type};

use crate::attributes::{self, Given, OF_ENUMS, OF_NEWTYPES, StructAttributes, VariantAttributes, value};
use crate::field_type;
use crate::mistakes::Mistakes;
use crate::tokens::derived;

/// A type that derives `FieldValue` or `CacheId`.
pub(crate) enum Plain<'a> {
    Newtype(Newtype<'a>),
    Variants(Vec<Variant<'a>>),
}

/// A struct with one field, besides any of type `PhantomData`.
pub(crate) struct Newtype<'a> {
    pub(crate) wrapped: &'a Type,
    fields: Vec<&'a Field>,
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
            _ => newtype(input, derive, mistakes).map(Self::Newtype),
        };
        (plain, library)
    }
}

impl Newtype<'_> {
    /// The name or the number of the field.
    pub(crate) fn member(&self) -> Member {
        let at = self.fields.iter().position(|field| !field_type::is_marker(&field.ty)).unwrap_or_default();
        match &self.fields[at].ident {
            Some(name) => Member::Named(derived(name)),
            None => Member::Unnamed(at.into()),
        }
    }

    /// The expression for a value of the type `name`.
    pub(crate) fn around(&self, name: &TokenStream, value: &TokenStream) -> TokenStream {
        let is_named = self.fields.iter().any(|field| field.ident.is_some());
        let fields = self.fields.iter().map(|field| {
            let name = field.ident.as_ref().map(derived).map(|name| quote!(#name:));
            let value = if field_type::is_marker(&field.ty) { &quote!(::core::marker::PhantomData) } else { value };
            quote!(#name #value)
        });
        if is_named { quote!(#name { #(#fields),* }) } else { quote!(#name(#(#fields),*)) }
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

fn newtype<'a>(input: &'a DeriveInput, derive: &str, mistakes: &mut Mistakes) -> Option<Newtype<'a>> {
    if let Data::Struct(data) = &input.data {
        let fields: Vec<_> = data.fields.iter().collect();
        let mut wrapped = fields.iter().filter(|field| !field_type::is_marker(&field.ty));
        if let (Some(field), None) = (wrapped.next(), wrapped.next()) {
            for attribute in fields.iter().flat_map(|field| attributes::of_crate(&field.attrs)) {
                let message =
                    format!("the field of a newtype that derives `{derive}` can't have attributes: remove this one");
                mistakes.add(attribute, message);
            }
            return Some(Newtype { wrapped: &field.ty, fields });
        }
    }
    let name = &input.ident;
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
    let mut taken: Vec<(&str, &Ident)> = Vec::new();
    let own = |variant: &'_ Variant| match &variant.attributes.rename {
        Some(rename) => rename.argument().to_token_stream(),
        None => variant.ident.to_token_stream(),
    };
    let owns = variants.iter().map(|variant| (variant.text.as_str(), variant.ident, own(variant)));
    let aliases = variants.iter().flat_map(|variant| {
        let aliases = variant.attributes.aliases.iter();
        aliases.filter_map(|alias| Some((alias.value()?.as_str(), variant.ident, alias.argument().to_token_stream())))
    });
    for (text, ident, tokens) in owns.chain(aliases) {
        match taken.iter().find(|(other, _)| *other == text) {
            Some((_, first)) => {
                let message = format!("the variant `{first}` has the text `{text}` already: choose another one");
                mistakes.add(tokens, message);
            }
            None => taken.push((text, ident)),
        }
    }
}

fn others_are_one(variants: &[Variant], mistakes: &mut Mistakes) {
    let others = variants.iter().filter_map(|variant| variant.attributes.other.as_ref());
    for other in others.skip(1) {
        mistakes.add(&other.original, "only one variant can be `other`: remove one");
    }
}
