//! The model of a struct and its attributes, which keeps the nodes that the user wrote.

use std::borrow::Cow;

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::{Data, DeriveInput, Path};

use crate::attributes::{FieldAttributes, Given, Known, StructAttributes, value};
use crate::case::Case;
use crate::mistakes::Mistakes;
use crate::{field_type, names, tokens};

/// A struct that derives `Cacheable` or `Embeddable`.
pub(crate) struct Record<'a> {
    pub(crate) original: &'a DeriveInput,
    pub(crate) attributes: StructAttributes,
    /// The named fields; empty if the input isn't a struct with named fields.
    pub(crate) fields: Vec<Field<'a>>,
}

pub(crate) struct Field<'a> {
    pub(crate) original: &'a syn::Field,
    pub(crate) ident: &'a Ident,
    pub(crate) attributes: FieldAttributes,
    case: Option<Case>,
}

impl<'a> Record<'a> {
    /// Reads a struct that may have these attributes, and its fields those.
    pub(crate) fn read(original: &'a DeriveInput, of: Known, of_fields: Known, mistakes: &mut Mistakes) -> Self {
        let attributes = StructAttributes::read(&original.attrs, of, mistakes);
        let case = value(&attributes.rename_all).copied();
        let mut fields = Vec::new();
        if let Data::Struct(data) = &original.data {
            for original in &data.fields {
                let Some(ident) = &original.ident else { continue };
                let attributes = FieldAttributes::read(&original.attrs, of_fields, mistakes);
                fields.push(Field { original, ident, attributes, case });
            }
        }
        Self { original, attributes, fields }
    }

    /// The path of the library.
    pub(crate) fn library(&self) -> TokenStream {
        library(&self.attributes)
    }

    pub(crate) fn entity(&self) -> Cow<'_, str> {
        match value(&self.attributes.entity) {
            Some(entity) => Cow::Borrowed(entity),
            None => Cow::Owned(names::snake_case(&self.original.ident.unraw().to_string())),
        }
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = &Field<'a>> {
        self.fields.iter().filter(|field| field.is_id())
    }

    pub(crate) fn stored(&self) -> impl Iterator<Item = &Field<'a>> {
        self.fields.iter().filter(|field| field.is_stored())
    }

    pub(crate) fn is_singleton(&self) -> bool {
        self.attributes.singleton.is_some()
    }

    /// The aliases of all fields.
    pub(crate) fn aliases(&self) -> impl Iterator<Item = &str> {
        self.stored().flat_map(Field::aliases)
    }

    /// The type in a field's `Option`, or else the field's type, as written outside of the struct.
    pub(crate) fn type_without_option(&self, field: &Field) -> TokenStream {
        tokens::outside(field.in_option().unwrap_or(&field.original.ty), &self.original.ident)
    }

    /// The type of a field, as written outside of the struct.
    pub(crate) fn type_of(&self, field: &Field) -> TokenStream {
        tokens::outside(&field.original.ty, &self.original.ident)
    }
}

impl Field<'_> {
    pub(crate) fn is_id(&self) -> bool {
        self.attributes.id.is_some()
    }

    pub(crate) fn is_stored(&self) -> bool {
        self.attributes.skip.is_none()
    }

    pub(crate) fn is_embedded(&self) -> bool {
        self.attributes.embed.is_some()
    }

    /// Whether an attribute says how its values become text.
    pub(crate) fn is_converted(&self) -> bool {
        self.attributes.json.is_some() || self.attributes.with.is_some()
    }

    /// Whether its own fields are fields of the struct, each with a handle.
    pub(crate) fn is_spread(&self) -> bool {
        self.is_embedded() && self.in_option().is_none()
    }

    /// The type in its `Option`.
    pub(crate) fn in_option(&self) -> Option<&syn::Type> {
        field_type::in_option(&self.original.ty)
    }

    /// The name in the hash.
    pub(crate) fn name(&self) -> Cow<'_, str> {
        match value(&self.attributes.rename) {
            Some(name) => Cow::Borrowed(name),
            None => {
                let name = self.ident.unraw().to_string();
                Cow::Owned(self.case.map_or_else(|| name.clone(), |case| case.of_field(&name)))
            }
        }
    }

    /// The prefix of the names of its own fields, if it is an embedded struct.
    pub(crate) fn prefix(&self) -> String {
        match value(&self.attributes.embed) {
            Some(Some(prefix)) => prefix.clone(),
            _ => format!("{}.", self.name()),
        }
    }

    /// The names that it is read from if it isn't there under its own.
    pub(crate) fn aliases(&self) -> impl Iterator<Item = &str> {
        self.attributes.aliases.iter().filter_map(Given::value).map(String::as_str)
    }
}

/// The path of the library: that of the attribute `crate`, or else `::cache_aside`.
pub(crate) fn library(attributes: &StructAttributes) -> TokenStream {
    value(&attributes.krate).map_or_else(|| quote!(::cache_aside), Path::to_token_stream)
}
