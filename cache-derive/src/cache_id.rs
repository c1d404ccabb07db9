//! `#[derive(CacheId)]`: checks that the type is a newtype, and delegates to the type that it wraps.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Fields, Type};

use crate::attributes::{self, StructAttributes};
use crate::mistakes::Mistakes;
use crate::model::library;
use crate::stub;
use crate::tokens::derived;

pub(crate) fn cache_id(input: &DeriveInput) -> TokenStream {
    let mut mistakes = Mistakes::default();
    let attributes = StructAttributes::read_newtype(&input.attrs, &mut mistakes);
    let wrapped = wrapped(input, &mut mistakes);
    has_no_parameters(input, &mut mistakes);
    let library = library(&attributes);
    match (wrapped, mistakes.into_error()) {
        (Some(wrapped), None) => implementation(input, &library, wrapped),
        (_, error) => {
            let error = error.map(syn::Error::into_compile_error);
            let stub = stub::cache_id(input, &library);
            quote!(#error #stub)
        }
    }
}

/// The type of the one field.
fn wrapped<'a>(input: &'a DeriveInput, mistakes: &mut Mistakes) -> Option<&'a Type> {
    let name = &input.ident;
    if let Data::Struct(data) = &input.data
        && let Fields::Unnamed(fields) = &data.fields
        && let Some(field) = fields.unnamed.first()
        && fields.unnamed.len() == 1
    {
        for attribute in attributes::of_crate(&field.attrs) {
            mistakes.add(attribute, "the field of a `CacheId` can't have attributes: remove this one");
        }
        return Some(&field.ty);
    }
    mistakes.add(name, format!("`CacheId` can only be derived for a newtype: write `struct {name}(String);`"));
    None
}

fn has_no_parameters(input: &DeriveInput, mistakes: &mut Mistakes) {
    if !input.generics.params.is_empty() {
        let message = "`CacheId` can't be derived for a struct with parameters: write one newtype for each kind of id";
        mistakes.add(&input.generics, message);
    }
}

fn implementation(input: &DeriveInput, library: &TokenStream, wrapped: &Type) -> TokenStream {
    let name = derived(&input.ident);
    let private = quote!(#library::__private);
    let encoded = quote!(::core::option::Option<#private::Vec<::core::primitive::u8>>);
    let bytes = quote!(#private::Cow<'_, [::core::primitive::u8]>);
    let error = quote!(#private::BoxError);

    // Only this constant uses the wrapped type's impls, so that a type without them is one error.
    quote! {
        const _: () = {
            const __WRAPPED: (
                fn(&#wrapped, &mut dyn ::core::fmt::Write) -> ::core::fmt::Result,
                fn(&#wrapped) -> #encoded,
                fn(#bytes) -> ::core::result::Result<#wrapped, #error>,
            ) = (
                <#wrapped as #library::CacheId>::write_id,
                <#wrapped as #library::FieldValue>::encode,
                <#wrapped as #library::FieldValue>::decode,
            );

            #[automatically_derived]
            impl #library::CacheId for #name {
                fn write_id(&self, __out: &mut dyn ::core::fmt::Write) -> ::core::fmt::Result {
                    (__WRAPPED.0)(&self.0, __out)
                }
            }

            #[automatically_derived]
            impl #library::FieldValue for #name {
                fn encode(&self) -> #encoded {
                    (__WRAPPED.1)(&self.0)
                }

                fn decode(__bytes: #bytes) -> ::core::result::Result<Self, #error> {
                    ::core::result::Result::map((__WRAPPED.2)(__bytes), Self)
                }
            }
        };
    }
}
