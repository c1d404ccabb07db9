//! `#[derive(FieldValue)]`: a newtype as the type that it wraps, and a variant as its text.

use proc_macro2::{Literal, TokenStream};
use quote::{ToTokens, quote};
use syn::spanned::Spanned;
use syn::{DeriveInput, parse_quote};

use crate::fields::AMBIGUOUS;
use crate::mistakes::Mistakes;
use crate::plain::{Newtype, Plain, Shape, Variant, text_of_self};
use crate::tokens::{derived, derived_span, located};
use crate::{field_type, rules, stub};

pub(crate) fn field_value(input: &DeriveInput) -> TokenStream {
    let mut mistakes = Mistakes::default();
    let plain = Plain::read(input, "FieldValue", &mut mistakes);
    rules::check_plain(&plain, &mut mistakes);
    let library = plain.library();
    let code = || match &plain.shape {
        Shape::Newtype(newtype) => of_newtype(input, &library, newtype),
        Shape::Variants(variants) => enumeration(input, &library, variants),
        Shape::Other => TokenStream::new(),
    };
    mistakes.or_code(code, || stub::field_value(input, &library))
}

fn of_newtype(input: &DeriveInput, library: &TokenStream, newtype: &Newtype) -> TokenStream {
    let (name, wrapped, member) = (derived(&input.ident), newtype.wrapped, newtype.member());
    let around = newtype.around(&quote!(Self), &quote!(__value));
    let private = quote!(#library::__private);
    let mut generics = input.generics.clone();
    // Only this uses the wrapped type's impl, so that a type without one is one error.
    let (codec, definition) = if generics.params.is_empty() {
        let codec = field_type::codec(&private, "Field", wrapped, &wrapped.to_token_stream(), &quote!(""));
        let check = quote!(::core::assert!(!#private::Codec::is_ambiguous(&__WRAPPED), #AMBIGUOUS));
        let check = located(check, derived_span(wrapped.span()));
        let definition = quote! {
            const __WRAPPED: #private::Codec<#wrapped> = #codec;
            const _: () = #check;
        };
        (quote!(__WRAPPED), Some(definition))
    } else {
        generics.make_where_clause().predicates.push(parse_quote!(#wrapped: #library::FieldValue));
        (quote!(#private::native::<#wrapped>("")), None)
    };
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();

    quote! {
        const _: () = {
            #definition

            #[automatically_derived]
            impl #impl_generics #library::FieldValue for #name #ty_generics #where_clause {
                const ABSENT_VALUES: ::core::primitive::u8 = #private::Codec::absent_values(&#codec);

                fn encode(&self) -> ::core::option::Option<#private::Vec<::core::primitive::u8>> {
                    ::core::result::Result::unwrap_or_default(#private::Codec::encode_wrapped(&#codec, &self.#member))
                }

                fn try_encode(
                    &self,
                ) -> ::core::result::Result<::core::option::Option<#private::Vec<::core::primitive::u8>>, #private::BoxError>
                {
                    #private::Codec::encode_wrapped(&#codec, &self.#member)
                }

                fn decode(
                    __bytes: #private::Cow<'_, [::core::primitive::u8]>,
                ) -> ::core::result::Result<Self, #private::BoxError> {
                    ::core::result::Result::map(#private::Codec::decode_wrapped(&#codec, __bytes), |__value| #around)
                }

                fn missing() -> ::core::option::Option<Self> {
                    ::core::option::Option::map(#private::Codec::missing_wrapped(&#codec), |__value| #around)
                }

                fn is_other(__bytes: &[::core::primitive::u8]) -> ::core::primitive::bool {
                    #private::Codec::is_other_wrapped(&#codec, __bytes)
                }

                fn heap(__bytes: &[::core::primitive::u8]) -> ::core::primitive::usize {
                    #private::Codec::heap_wrapped(&#codec, __bytes)
                }
            }
        };
    }
}

fn enumeration(input: &DeriveInput, library: &TokenStream, variants: &[Variant]) -> TokenStream {
    let name = derived(&input.ident);
    let private = quote!(#library::__private);
    let byte_string = |text: &str| Literal::byte_string(text.as_bytes());
    let text = text_of_self(variants);
    let known = variants.iter().map(|variant| {
        let ident = variant.ident();
        let (text, aliases) = (byte_string(&variant.text), variant.aliases().map(byte_string));
        quote!(#text #(| #aliases)* => ::core::option::Option::Some(#name::#ident))
    });
    let all_texts = variants.iter().map(|variant| &variant.text);
    let other = variants.iter().find(|variant| variant.is_other()).map(Variant::ident);
    let unknown = match &other {
        Some(other) => quote!(::core::result::Result::Ok(Self::#other)),
        None => quote!(::core::result::Result::Err(#private::unknown_variant(&[#(#all_texts),*], &__bytes))),
    };
    let is_other = other.map(|_| {
        quote! {
            fn is_other(__bytes: &[::core::primitive::u8]) -> ::core::primitive::bool {
                ::core::option::Option::is_none(&__known(__bytes))
            }
        }
    });

    quote! {
        const _: () = {
            fn __known(__bytes: &[::core::primitive::u8]) -> ::core::option::Option<#name> {
                match __bytes {
                    #(#known,)*
                    _ => ::core::option::Option::None,
                }
            }

            #[automatically_derived]
            impl #library::FieldValue for #name {
                fn encode(&self) -> ::core::option::Option<#private::Vec<::core::primitive::u8>> {
                    let __text: &::core::primitive::str = #text;
                    ::core::option::Option::Some(<#private::Vec<_> as ::core::convert::From<_>>::from(__text))
                }

                fn decode(
                    __bytes: #private::Cow<'_, [::core::primitive::u8]>,
                ) -> ::core::result::Result<Self, #private::BoxError> {
                    match __known(&__bytes) {
                        ::core::option::Option::Some(__value) => ::core::result::Result::Ok(__value),
                        ::core::option::Option::None => #unknown,
                    }
                }

                #is_other
            }
        };
    }
}
