//! The code that `#[derive(Cacheable)]` generates.
//!
//! It is inside a `const _`, names everything by absolute paths, and imports nothing. Each stored field gets a constant
//! with its codec. Nothing else depends on the traits of the field's type, so an unsuitable type is one error.

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{DeriveInput, Generics};

use crate::attributes::{OF_FIELDS, OF_RECORDS, value};
use crate::fields::Site;
use crate::mistakes::Mistakes;
use crate::model::{Field, Record};
use crate::tokens::{derived, derived_span, located};
use crate::{rules, stub};

pub(crate) fn cacheable(input: &DeriveInput) -> TokenStream {
    let mut mistakes = Mistakes::default();
    let record = Record::read(input, OF_RECORDS, OF_FIELDS, &mut mistakes);
    rules::check(&record, &mut mistakes);
    mistakes.or_code(|| implementation(&record), || stub::cacheable(&record))
}

/// The parts that differ between a working impl and a stub.
pub(crate) struct Parts {
    pub(crate) generics: Generics,
    pub(crate) id: TokenStream,
    /// The places, codecs and checks of the fields, and the struct of the handles.
    pub(crate) fields: TokenStream,
    pub(crate) handles: TokenStream,
    pub(crate) handle_values: TokenStream,
    /// The schema and the methods of `Cacheable`.
    pub(crate) members: TokenStream,
}

pub(crate) fn assemble(record: &Record, parts: Parts) -> TokenStream {
    let library = record.library();
    let Parts { generics, id, fields, handles, handle_values, members } = parts;
    let vis = &record.original.vis;
    let name = derived(&record.original.ident);
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();

    // The compiler already warns of a deprecated type at the struct itself.
    quote! {
        #[allow(deprecated)]
        const _: () = {
            #fields

            #[automatically_derived]
            impl #impl_generics #name #ty_generics #where_clause {
                /// The handles of the fields.
                #[allow(dead_code)]
                #vis const FIELDS: #handles = <Self as #library::Cacheable>::FIELDS;
            }

            #[automatically_derived]
            impl #impl_generics #library::Cacheable for #name #ty_generics #where_clause {
                type Id = #id;
                type Fields = #handles;

                const FIELDS: #handles = #handle_values;

                #members
            }
        };
    }
}

fn implementation(record: &Record) -> TokenStream {
    let library = record.library();
    let private = quote!(#library::__private);
    let site = Site::of_record(record);
    let places = site.places();
    let codecs = site.codecs();
    let handles = site.handles_name();
    let handles_struct = site.handles_struct();
    let default_ttl_check = default_ttl_check(record);
    let names_check = names_check(record);
    let singleton_check = singleton_check(record, &site);
    let value_checks = site.value_checks();

    let schema = schema(record, &site);
    let id = (!record.is_singleton()).then(|| {
        id_of(record.ids(), |field| {
            let ident = derived(field.ident);
            quote_spanned!(ident.span()=> ::core::clone::Clone::clone(&self.#ident))
        })
    });
    let id_parts = record.ids().map(|field| {
        let (ident, codec) = (derived(field.ident), site.codec(field));
        quote!(#private::Codec::write_id(&#codec, &self.#ident, __out)?;)
    });
    let id_parts = match record.is_singleton() {
        true => quote!(#private::IdParts::next_part(__out)?; #library::CacheId::write_id(&(), __out)?;),
        false => quote!(#(#id_parts)*),
    };
    let (encode, decode, reset_skipped) = (site.encode(), site.decode(), site.reset_skipped());

    assemble(
        record,
        Parts {
            generics: record.original.generics.clone(),
            id: id_of(record.ids(), |field| record.type_of(field)),
            fields: quote!(#places #codecs #handles_struct #default_ttl_check #names_check #singleton_check #value_checks),
            handles: quote!(#handles),
            handle_values: site.handle_values(),
            members: quote! {
                const SCHEMA: #library::Schema = #schema;

                fn id(&self) -> Self::Id {
                    #id
                }

                fn write_id(&self, __out: &mut dyn #private::IdParts) -> ::core::fmt::Result {
                    #id_parts
                    ::core::result::Result::Ok(())
                }

                #encode
                #decode
                #reset_skipped
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

fn schema(record: &Record, site: &Site) -> TokenStream {
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
        ("stale_while_revalidate", value(&attributes.stale_while_revalidate).map(duration)),
        ("soft_timeout", value(&attributes.soft_timeout).map(duration)),
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
    let ids = record.ids().map(Field::name);
    let has_embedded = record.stored().any(Field::is_embedded);
    let (names, aliases) = if has_embedded {
        let private = quote!(#library::__private);
        let flat = |names: TokenStream| {
            quote! {{
                const __NAMES: &[#private::Name] = #names;
                const __FLAT: [&::core::primitive::str; #private::count(__NAMES)] = #private::flatten(__NAMES);
                &__FLAT
            }}
        };
        (flat(site.names()), flat(site.aliases()))
    } else {
        let (names, aliases) = (record.stored().map(Field::name), record.aliases());
        (quote!(&[#(#names),*]), quote!(&[#(#aliases),*]))
    };
    let also_invalidates = value(&attributes.also_invalidates).into_iter().flatten();
    let also_invalidates = also_invalidates.map(|version| match version.number {
        Some(number) => quote!(::core::option::Option::Some(#number)),
        None => quote!(::core::option::Option::None),
    });
    quote! {{
        let mut __schema = #library::Schema::new(#entity);
        #(#options)*
        __schema.fields = #names;
        __schema.ids = &[#(#ids),*];
        __schema.aliases = #aliases;
        __schema.also_invalidates = &[#(#also_invalidates),*];
        __schema
    }}
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

/// Compares the names of all fields, also those of embedded structs, which the derive doesn't see.
fn names_check(record: &Record) -> Option<TokenStream> {
    let embed = record.stored().find_map(|field| field.attributes.embed.as_ref())?;
    let (library, name) = (record.library(), derived(&record.original.ident));
    let panic = quote!(::core::panic!("{}", #library::__private::Text::as_str(&__mistake)));
    let panic = located(panic, embed.original.span());
    Some(quote! {
        const _: () = {
            const __SCHEMA: #library::Schema = <#name as #library::Cacheable>::SCHEMA;
            if let ::core::option::Option::Some(__mistake) =
                #library::__private::mistake_in_names(__SCHEMA.fields, __SCHEMA.aliases)
            {
                #panic
            }
        };
    })
}

/// A hash without a field does not exist.
fn singleton_check(record: &Record, site: &Site) -> Option<TokenStream> {
    let given = record.attributes.singleton.as_ref()?;
    let is_always_stored = site.is_always_stored();
    Some(quote_spanned! {derived_span(given.original.span())=>
        const _: () = ::core::assert!(
            #is_always_stored,
            "a `singleton` needs at least one field that is always stored: all of its fields may be absent",
        );
    })
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use crate::cache_id::cache_id;
    use crate::embeddable::embeddable;
    use crate::field_value::field_value;

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
                #[cacheable(embed)]
                home: Address,
                #[cacheable(embed)]
                work: Option<Address>,
                day: Option<Date>,
            }
        });
        let embedded = embeddable(&parse_quote! {
            #[cacheable(crate = elsewhere)]
            struct Address {
                #[cacheable(alias = "road")]
                street: String,
                #[cacheable(embed)]
                place: Place,
            }
        });
        let variants = field_value(&parse_quote! {
            #[cacheable(crate = elsewhere)]
            enum Status { Active, #[cacheable(other)] Unknown }
        });
        let stub = cacheable(&parse_quote! {
            #[cacheable(crate = elsewhere)]
            struct Product { stock: u32 }
        });
        let newtype = parse_quote! {
            #[cacheable(crate = elsewhere)]
            struct OrderId(u64);
        };
        for code in
            [record, embedded, variants, stub, cache_id(&newtype), field_value(&newtype)].map(|code| code.to_string())
        {
            assert!(code.contains("elsewhere ::"), "{code}");
            assert!(!code.contains("cache_aside"), "{code}");
        }
    }
}
