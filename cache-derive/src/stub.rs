//! The stub that replaces an impl if there are mistakes: the same items with bodies that never run, so that uses of the
//! type don't add errors of their own.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Generics, parse_quote};

use crate::cacheable::{Parts, assemble, id_of};
use crate::embeddable as embedded;
use crate::fields::Site;
use crate::model::{Field, Record};
use crate::tokens::derived;

pub(crate) fn cacheable(record: &Record) -> TokenStream {
    let library = record.library();
    let private = quote!(#library::__private);
    let generics = &record.original.generics;
    // The types of the fields may use the struct's parameters, which don't exist here.
    let is_known = |_: &Field| generics.params.is_empty();
    let ids = record.fields.iter().filter(|field| is_known(field) && is_taken_for_id(record, field));
    let id = id_of(ids, |field| record.type_of(field));
    let site = Site::of_record(record).only(|field| is_known(field) && !is_taken_for_id(record, field));

    assemble(
        record,
        Parts {
            generics: assume(generics, &TokenStream::new()),
            id,
            fields: fields(&site, &private),
            handles: site.handles_name(),
            handle_values: site.handle_values(),
            members: quote! {
                const SCHEMA: #library::Schema = #library::Schema::new("");

                fn id(&self) -> Self::Id {
                    ::core::unreachable!()
                }

                fn write_id(&self, _: &mut dyn #private::IdParts) -> ::core::fmt::Result {
                    ::core::unreachable!()
                }

                fn encode(&self, _: &mut #private::RecordWriter) {
                    ::core::unreachable!()
                }

                fn decode(_: &mut #private::RecordReader<'_>) -> ::core::result::Result<Self, #private::FieldError> {
                    ::core::unreachable!()
                }
            },
        },
    )
}

pub(crate) fn embeddable(record: &Record) -> TokenStream {
    if !record.original.generics.params.is_empty() {
        return TokenStream::new();
    }
    let library = record.library();
    let private = quote!(#library::__private);
    let site = Site::embedded(record);
    let members = quote! {
        const NAMES: &'static [#private::Name] = &[];
        const ALIASES: &'static [#private::Name] = &[];
        const IS_ALWAYS_STORED: ::core::primitive::bool = true;

        fn encode(&self, _: &mut #private::RecordWriter) {
            ::core::unreachable!()
        }

        fn decode(_: &mut #private::RecordReader<'_>) -> ::core::result::Result<Self, #private::FieldError> {
            ::core::unreachable!()
        }
    };
    embedded::assemble(record, &site, embedded::Parts { fields: fields(&site, &private), members })
}

/// The places of the fields, the struct of the handles, and codecs that never run.
fn fields(site: &Site, private: &TokenStream) -> TokenStream {
    let codecs =
        site.codecs_by(|_| quote!(#private::Codec::with("", |_| ::core::unreachable!(), |_| ::core::unreachable!())));
    let (places, handles_struct) = (site.places(), site.handles_struct());
    quote!(#places #codecs #handles_struct)
}

/// If no field is marked as the id, a field of that name is the best guess. An embedded struct is none: it may lack what an id needs.
fn is_taken_for_id(record: &Record, field: &Field) -> bool {
    field.is_id() && !field.is_embedded() || (field.ident == "id" && record.ids().next().is_none())
}

pub(crate) fn cache_id(input: &DeriveInput, library: &TokenStream) -> TokenStream {
    let name = derived(&input.ident);
    let generics = assume(&input.generics, &quote!(::core::clone::Clone + ::core::cmp::Eq + ::core::hash::Hash));
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();

    quote! {
        #[automatically_derived]
        impl #impl_generics #library::CacheId for #name #ty_generics #where_clause {
            fn write_id(&self, _: &mut dyn ::core::fmt::Write) -> ::core::fmt::Result {
                ::core::unreachable!()
            }
        }
    }
}

pub(crate) fn field_value(input: &DeriveInput, library: &TokenStream) -> TokenStream {
    let name = derived(&input.ident);
    let private = quote!(#library::__private);
    let (impl_generics, ty_generics, where_clause) = input.generics.split_for_impl();

    quote! {
        #[automatically_derived]
        impl #impl_generics #library::FieldValue for #name #ty_generics #where_clause {
            fn encode(&self) -> ::core::option::Option<#private::Vec<::core::primitive::u8>> {
                ::core::unreachable!()
            }

            fn decode(
                _: #private::Cow<'_, [::core::primitive::u8]>,
            ) -> ::core::result::Result<Self, #private::BoxError> {
                ::core::unreachable!()
            }
        }
    }
}

/// Parameters are reported as a mistake anyway, so the stub just assumes that their bounds hold.
fn assume(generics: &Generics, bounds: &TokenStream) -> Generics {
    let mut generics = generics.clone();
    if !generics.params.is_empty() {
        generics
            .make_where_clause()
            .predicates
            .push(parse_quote!(Self: ::core::marker::Send + ::core::marker::Sync + 'static + #bounds));
    }
    generics
}
