//! The code that `#[derive(Cacheable)]` generates.
//!
//! It is inside a `const _`, names everything by absolute paths, and imports nothing. Each stored field gets a constant
//! with its codec. Nothing else depends on the traits of the field's type, so an unsuitable type is one error.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{DeriveInput, Generics};

use crate::attributes::value;
use crate::mistakes::Mistakes;
use crate::model::{Field, Record};
use crate::tokens::{derived, derived_span, mention};
use crate::{rules, stub};

pub(crate) fn cacheable(input: &DeriveInput) -> TokenStream {
    let mut mistakes = Mistakes::default();
    let record = Record::read(input, &mut mistakes);
    rules::check(&record, &mut mistakes);
    match mistakes.into_error() {
        None => implementation(&record),
        Some(error) => {
            let error = error.into_compile_error();
            let stub = stub::cacheable(&record);
            quote!(#error #stub)
        }
    }
}

/// The parts that differ between a working impl and a stub.
pub(crate) struct Parts<'a> {
    pub(crate) generics: Generics,
    pub(crate) id: TokenStream,
    pub(crate) handles: Vec<&'a Field<'a>>,
    pub(crate) codecs: TokenStream,
    /// The schema and the methods of `Cacheable`.
    pub(crate) members: TokenStream,
}

pub(crate) fn assemble(record: &Record, parts: Parts) -> TokenStream {
    let library = record.library();
    let Parts { generics, id, handles, codecs, members } = parts;
    let vis = &record.original.vis;
    let name = derived(&record.original.ident);
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();

    let fields = fields_name(record);
    let fields_doc = format!("The handles of the fields of `{name}`.");
    let handle_values = handles.iter().map(|field| {
        let (ident, codec) = (derived(field.ident), codec_name(field));
        quote!(#ident: #library::Field::new(#codec, |__record| &__record.#ident))
    });
    let declarations = handles.iter().map(|field| {
        let vis = &field.original.vis;
        let ident = derived(field.ident);
        let ty = record.type_of(field);
        let doc = format!("The field `{}`.", field.name());
        quote!(#[doc = #doc] #vis #ident: #library::Field<#name, #ty>)
    });

    // The compiler already warns of a deprecated type at the struct itself.
    quote! {
        #[allow(deprecated)]
        const _: () = {
            #codecs

            #[doc = #fields_doc]
            #vis struct #fields {
                #(#declarations,)*
            }

            #[automatically_derived]
            impl #impl_generics #name #ty_generics #where_clause {
                /// The handles of the fields.
                #[allow(dead_code)]
                #vis const FIELDS: #fields = <Self as #library::Cacheable>::FIELDS;
            }

            #[automatically_derived]
            impl #impl_generics #library::Cacheable for #name #ty_generics #where_clause {
                type Id = #id;
                type Fields = #fields;

                const FIELDS: #fields = #fields {
                    #(#handle_values,)*
                };

                #members
            }
        };
    }
}

fn implementation(record: &Record) -> TokenStream {
    let library = record.library();
    let private = quote!(#library::__private);
    let codecs = record.stored().map(|field| {
        let name = codec_name(field);
        let ty = record.type_of(field);
        let mut codec = codec(record, field);
        if field.attributes.default.is_some() {
            codec = quote!(#private::or_default::<#ty>(#codec));
        }
        let aliases: Vec<_> = field.aliases().collect();
        let aliases = (!aliases.is_empty()).then(|| quote!(.aliases(&[#(#aliases),*])));
        quote!(const #name: #private::Codec<#ty> = #codec #aliases;)
    });
    let default_ttl_check = default_ttl_check(record);

    let schema = schema(record);
    let id = id_of(record.ids(), |field| {
        let ident = derived(field.ident);
        quote_spanned!(ident.span()=> ::core::clone::Clone::clone(&self.#ident))
    });
    let id_parts = record.ids().map(|field| {
        let (ident, codec) = (derived(field.ident), codec_name(field));
        quote!(#private::Codec::write_id(&#codec, &self.#ident, __out)?)
    });
    let puts = record.stored().map(|field| {
        let (ident, codec) = (derived(field.ident), codec_name(field));
        quote!(__record.put(&#codec, &self.#ident))
    });
    let reads = record.fields.iter().map(|field| read(record, field));

    assemble(
        record,
        Parts {
            generics: record.original.generics.clone(),
            id: id_of(record.ids(), |field| record.type_of(field)),
            handles: record.updatable().collect(),
            codecs: quote!(#(#codecs)* #default_ttl_check),
            members: quote! {
                const SCHEMA: #library::Schema = #schema;

                fn id(&self) -> Self::Id {
                    #id
                }

                fn write_id(&self, __out: &mut dyn #private::IdParts) -> ::core::fmt::Result {
                    #(#id_parts;)*
                    ::core::result::Result::Ok(())
                }

                fn encode(&self, __record: &mut #private::RecordWriter) {
                    #(#puts;)*
                }

                fn decode(
                    __record: &mut #private::RecordReader<'_>,
                ) -> ::core::result::Result<Self, #private::FieldError> {
                    ::core::result::Result::Ok(Self { #(#reads,)* })
                }
            },
        },
    )
}

/// The type of an id: that of its only field, or a tuple of several.
pub(crate) fn id_of<'a>(
    ids: impl Iterator<Item = &'a Field<'a>>,
    part: impl FnMut(&'a Field<'a>) -> TokenStream,
) -> TokenStream {
    let parts: Vec<_> = ids.map(part).collect();
    match parts.as_slice() {
        [part] => part.clone(),
        parts => quote!((#(#parts),*)),
    }
}

fn schema(record: &Record) -> TokenStream {
    let library = record.library();
    let entity = record.entity();
    let attributes = &record.attributes;
    let duration = |millis: &u64| quote!(::core::time::Duration::from_millis(#millis));
    let options = [
        ("namespace", value(&attributes.namespace).map(ToTokens::to_token_stream)),
        ("version", value(&attributes.version).map(ToTokens::to_token_stream)),
        ("ttl", value(&attributes.ttl).map(duration)),
        ("not_found_ttl", value(&attributes.not_found_ttl).map(duration)),
        ("stale_if_error", value(&attributes.stale_if_error).map(duration)),
        ("stale_retry", value(&attributes.stale_retry).map(duration)),
        (
            "refresh_ahead",
            value(&attributes.refresh_ahead).map(|beta| match beta {
                Some(beta) => quote!(#beta),
                None => quote!(#library::defaults::REFRESH_AHEAD),
            }),
        ),
    ];
    let options = options.into_iter().filter_map(|(field, value)| {
        let (field, value) = (format_ident!("{field}"), value?);
        Some(quote!(__schema.#field = ::core::option::Option::Some(#value);))
    });
    let names = record.stored().map(Field::name);
    let ids = record.ids().map(Field::name);
    let aliases = record.aliases();
    let also_invalidates = value(&attributes.also_invalidates).into_iter().flatten();
    let also_invalidates = also_invalidates.map(|version| match version.number {
        Some(number) => quote!(::core::option::Option::Some(#number)),
        None => quote!(::core::option::Option::None),
    });
    quote! {{
        let mut __schema = #library::Schema::new(#entity);
        #(#options)*
        __schema.fields = &[#(#names),*];
        __schema.ids = &[#(#ids),*];
        __schema.aliases = &[#(#aliases),*];
        __schema.also_invalidates = &[#(#also_invalidates),*];
        __schema
    }}
}

fn codec(record: &Record, field: &Field) -> TokenStream {
    let library = record.library();
    let private = quote!(#library::__private);
    let name = field.name();
    let ty = record.type_of(field);
    if field.is_id() {
        return quote!(#private::id::<#ty>(#name));
    }
    if field.attributes.json.is_some() {
        return quote!(#private::json::<#ty>(#name));
    }
    let Some((with, module)) = field.attributes.with.as_ref().zip(value(&field.attributes.with)) else {
        return quote!(#private::native::<#ty>(#name));
    };
    // Errors in the module's functions are shown at the text that names the module.
    quote_spanned! {derived_span(with.argument().span())=>
        #private::Codec::with(
            #name,
            |__value| ::core::result::Result::Ok(::core::option::Option::Some(
                ::core::convert::Into::into(#module::encode(__value)),
            )),
            |__bytes| ::core::result::Result::map_err(#module::decode(&__bytes), ::core::convert::Into::into),
        )
    }
}

fn read(record: &Record, field: &Field) -> TokenStream {
    let ident = derived(field.ident);
    let codec = codec_name(field);
    let ty = record.type_of(field);
    if field.is_stored() {
        quote!(#ident: __record.read(&#codec)?)
    } else {
        quote!(#ident: <#ty as ::core::default::Default>::default())
    }
}

/// Compares a `not_found_ttl` that is given without `ttl` with the library's default for `ttl`.
fn default_ttl_check(record: &Record) -> Option<TokenStream> {
    let attributes = &record.attributes;
    let given = attributes.not_found_ttl.as_ref().filter(|_| attributes.ttl.is_none())?;
    let millis = u128::from(*value(&attributes.not_found_ttl)?);
    let library = record.library();
    Some(quote_spanned! {derived_span(given.argument().span())=>
        const _: () = ::core::assert!(
            #millis < ::core::time::Duration::as_millis(&#library::defaults::TTL),
            "`not_found_ttl` must be shorter than `ttl`: write a longer `ttl` too, since this isn't shorter than its \
             default",
        );
    })
}

pub(crate) fn codec_name(field: &Field) -> Ident {
    format_ident!("__codec_{}", field.ident.unraw(), span = derived_span(field.ident.span()))
}

/// `ProductFields`, or a longer name if a field has a type of that name.
fn fields_name(record: &Record) -> Ident {
    let name = &record.original.ident;
    let mut fields = format!("{}Fields", name.unraw());
    while record.fields.iter().any(|field| mention(field.original.ty.to_token_stream(), &fields)) {
        fields.push('_');
    }
    Ident::new(&fields, derived_span(name.span()))
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use crate::cache_id::cache_id;

    use super::cacheable;

    #[test]
    fn the_library_is_where_crate_says() {
        let record = cacheable(&parse_quote! {
            #[cacheable(crate = elsewhere, namespace = "shop", not_found_ttl = "1s", version = 1)]
            struct Product {
                #[cacheable(id)]
                id: String,
                #[cacheable(default)]
                stock: u32,
                #[cacheable(skip)]
                seen: bool,
                #[cacheable(with = "grams")]
                weight: f64,
            }
        });
        let stub = cacheable(&parse_quote! {
            #[cacheable(crate = elsewhere)]
            struct Product { stock: u32 }
        });
        let newtype = cache_id(&parse_quote! {
            #[cacheable(crate = elsewhere)]
            struct OrderId(u64);
        });
        for code in [record, stub, newtype].map(|code| code.to_string()) {
            assert!(code.contains("elsewhere ::"), "{code}");
            assert!(!code.contains("cache_aside"), "{code}");
        }
    }
}
