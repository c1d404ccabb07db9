//! `#[derive(CacheId)]`: a newtype as the id that it wraps, and a variant as its text.

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote};
use syn::DeriveInput;

use crate::mistakes::Mistakes;
use crate::plain::{Newtype, Plain, Shape, Variant, text_of_self};
use crate::tokens::derived;
use crate::{field_type, rules, stub};

pub(crate) fn cache_id(input: &DeriveInput) -> TokenStream {
    let mut mistakes = Mistakes::default();
    let plain = Plain::read(input, "CacheId", &mut mistakes);
    rules::check_plain(&plain, &mut mistakes);
    rules::plain_has_no_parameters(&plain, &mut mistakes);
    let library = plain.library();
    let code = || match &plain.shape {
        Shape::Newtype(newtype) => of_newtype(input, &library, newtype),
        Shape::Variants(variants) => enumeration(input, &library, variants),
        Shape::Other => TokenStream::new(),
    };
    mistakes.or_code(code, || stub::cache_id(input, &library))
}

fn of_newtype(input: &DeriveInput, library: &TokenStream, newtype: &Newtype) -> TokenStream {
    let (name, wrapped, member) = (derived(&input.ident), newtype.wrapped, newtype.member());
    let private = quote!(#library::__private);
    let write_id = field_type::feature(wrapped).map_or_else(
        || quote!(#private::write_id::<#wrapped>),
        |feature| {
            let feature = format_ident!("{feature}");
            quote!(<#wrapped as #private::features::#feature::Wrapped>::write_id)
        },
    );
    let key = |key: TokenStream, write: TokenStream, value: TokenStream| {
        let around = newtype.around(&name.to_token_stream(), &value);
        quote! {
            #[automatically_derived]
            impl #library::CacheKey<#name> for #key {
                fn write_parts(&self, __out: &mut dyn #private::IdParts) -> ::core::fmt::Result {
                    #private::IdParts::next_part(__out)?;
                    #write
                }

                fn into_id(self) -> #name {
                    #around
                }
            }
        }
    };
    let own = key(quote!(#wrapped), quote!(__WRAPPED(self, __out)), quote!(self));
    let borrowed =
        key(quote!(&#wrapped), quote!(__WRAPPED(self, __out)), quote!(<#wrapped as ::core::clone::Clone>::clone(self)));
    let text = field_type::is_text(wrapped).then(|| {
        let write = quote!(::core::fmt::Write::write_str(__out, self));
        key(quote!(&::core::primitive::str), write, quote!(<#wrapped as ::core::convert::From<_>>::from(self)))
    });

    // Only this constant uses the wrapped type's impl, so that a type without one is one error.
    quote! {
        const _: () = {
            const __WRAPPED: fn(&#wrapped, &mut dyn ::core::fmt::Write) -> ::core::fmt::Result =
                #write_id;

            #[automatically_derived]
            impl #library::CacheId for #name {
                fn write_id(&self, __out: &mut dyn ::core::fmt::Write) -> ::core::fmt::Result {
                    __WRAPPED(&self.#member, __out)
                }
            }

            // A call also accepts the wrapped value as an id.
            #own
            #borrowed
            #text
        };
    }
}

fn enumeration(input: &DeriveInput, library: &TokenStream, variants: &[Variant]) -> TokenStream {
    let name = derived(&input.ident);
    let text = text_of_self(variants);
    quote! {
        #[automatically_derived]
        impl #library::CacheId for #name {
            fn write_id(&self, __out: &mut dyn ::core::fmt::Write) -> ::core::fmt::Result {
                ::core::fmt::Write::write_str(__out, #text)
            }
        }
    }
}
