//! The stub that replaces an impl if there are mistakes: the same items with bodies that never run, so that uses of the
//! type don't add errors of their own.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Generics, parse_quote};

use crate::expand::{Parts, assemble, codec_name, id_of};
use crate::model::{Field, Record};
use crate::tokens::derived;

pub(crate) fn cacheable(record: &Record) -> TokenStream {
    let library = record.library();
    let private = quote!(#library::__private);
    // The types of the fields may use the struct's parameters, which don't exist here.
    let generics = &record.original.generics;
    let fields = if generics.params.is_empty() { record.fields.as_slice() } else { &[] };
    let (ids, others): (Vec<_>, Vec<_>) = fields.iter().partition(|field| is_taken_for_id(record, field));
    let handles: Vec<_> = others.into_iter().filter(|field| field.is_stored()).collect();
    let codecs = handles.iter().map(|field| {
        let name = codec_name(field);
        let ty = record.type_of(field);
        quote! {
            const #name: #private::Codec<#ty> =
                #private::Codec::with("", |_| ::core::unreachable!(), |_| ::core::unreachable!());
        }
    });

    let parts = Parts {
        generics: assume(generics, &TokenStream::new()),
        id: id_of(ids.into_iter(), |field| record.type_of(field)),
        codecs: quote!(#(#codecs)*),
        handles,
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
    };
    assemble(record, parts)
}

/// If no field is marked as the id, a field of that name is the best guess.
fn is_taken_for_id(record: &Record, field: &Field) -> bool {
    field.is_id() || (field.ident == "id" && record.ids().next().is_none())
}

pub(crate) fn cache_id(input: &DeriveInput, library: &TokenStream) -> TokenStream {
    let name = derived(&input.ident);
    let private = quote!(#library::__private);
    let generics = assume(&input.generics, &quote!(::core::clone::Clone + ::core::cmp::Eq + ::core::hash::Hash));
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();

    quote! {
        #[automatically_derived]
        impl #impl_generics #library::CacheId for #name #ty_generics #where_clause {
            fn write_id(&self, _: &mut dyn ::core::fmt::Write) -> ::core::fmt::Result {
                ::core::unreachable!()
            }
        }

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
