//! The model of a type that is one value of a hash, which keeps the nodes that the user wrote: a newtype, or an enum without data.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::{Data, DeriveInput, Field, Ident, Member, Type};

use crate::attributes::{Given, OF_ENUMS, OF_NEWTYPES, StructAttributes, VariantAttributes, value};
use crate::mistakes::Mistakes;
use crate::tokens::derived;
use crate::{field_type, model};

/// A type that derives `FieldValue` or `CacheId`.
pub(crate) struct Plain<'a> {
    pub(crate) original: &'a DeriveInput,
    /// The name of the trait.
    pub(crate) derive: &'static str,
    pub(crate) shape: Shape<'a>,
    attributes: StructAttributes,
}

pub(crate) enum Shape<'a> {
    Newtype(Newtype<'a>),
    Variants(Vec<Variant<'a>>),
    /// Any other type, which is a mistake.
    Other,
}

/// A struct with one field, besides any of type `PhantomData`.
pub(crate) struct Newtype<'a> {
    pub(crate) wrapped: &'a Type,
    pub(crate) fields: Vec<&'a Field>,
}

pub(crate) struct Variant<'a> {
    pub(crate) original: &'a syn::Variant,
    /// The stored text.
    pub(crate) text: String,
    pub(crate) attributes: VariantAttributes,
}

impl<'a> Plain<'a> {
    pub(crate) fn read(original: &'a DeriveInput, derive: &'static str, mistakes: &mut Mistakes) -> Self {
        let known = if let Data::Enum(_) = original.data { OF_ENUMS } else { OF_NEWTYPES };
        let attributes = StructAttributes::read(&original.attrs, known, mistakes);
        let shape = match &original.data {
            Data::Enum(data) => Shape::Variants(
                data.variants.iter().map(|variant| Variant::read(variant, &attributes, mistakes)).collect(),
            ),
            Data::Struct(data) => Newtype::read(data.fields.iter().collect()).map_or(Shape::Other, Shape::Newtype),
            Data::Union(_) => Shape::Other,
        };
        Self { original, derive, shape, attributes }
    }

    /// The path of the library.
    pub(crate) fn library(&self) -> TokenStream {
        model::library(&self.attributes)
    }
}

impl<'a> Newtype<'a> {
    fn read(fields: Vec<&'a Field>) -> Option<Self> {
        let mut wrapped = fields.iter().filter(|field| !field_type::is_marker(&field.ty));
        let (Some(field), None) = (wrapped.next(), wrapped.next()) else { return None };
        Some(Self { wrapped: &field.ty, fields })
    }

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

impl<'a> Variant<'a> {
    fn read(original: &'a syn::Variant, of_enum: &StructAttributes, mistakes: &mut Mistakes) -> Self {
        let attributes = VariantAttributes::read(&original.attrs, mistakes);
        let name = original.ident.unraw().to_string();
        let text = match (value(&attributes.rename), value(&of_enum.rename_all)) {
            (Some(text), _) => text.clone(),
            (None, Some(case)) => case.of_variant(&name),
            (None, None) => name,
        };
        Self { original, text, attributes }
    }

    pub(crate) fn ident(&self) -> Ident {
        derived(&self.original.ident)
    }

    /// The texts that it is read from, besides its own.
    pub(crate) fn aliases(&self) -> impl Iterator<Item = &str> {
        self.attributes.aliases.iter().filter_map(Given::value).map(String::as_str)
    }

    /// Whether it stands for all unknown texts.
    pub(crate) fn is_other(&self) -> bool {
        self.attributes.other.is_some()
    }
}

/// The text of the variant `self`, as an expression.
pub(crate) fn text_of_self(variants: &[Variant]) -> TokenStream {
    let arms = variants.iter().map(|variant| {
        let (ident, text) = (variant.ident(), &variant.text);
        quote!(Self::#ident => #text)
    });
    quote!(match self { #(#arms,)* })
}
