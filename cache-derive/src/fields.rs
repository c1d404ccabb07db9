//! The code for the fields of a struct: their codecs, and how they are written and read. `handles` has that of their handles.
//!
//! A record knows the names of its fields. An embedded struct doesn't: its names begin with a prefix, which depends on the place
//! where it is embedded. So its code has a parameter for that place, and its codecs are constants of the type `__At<P>`.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::Visibility;
use syn::ext::IdentExt;
use syn::spanned::Spanned;

use crate::attributes::value;
use crate::field_type;
use crate::model::{Field, Record};
use crate::tokens::{derived, derived_span};

const ALL_ABSENT: &str = "all fields of this struct may be absent, so `None` and `Some` would be stored alike: give it a field \
                          that is no `Option`";

pub(crate) const AMBIGUOUS: &str = "in an `Option` of an `Option`, `Some(None)` and `None` would be stored alike: write \
                                    `#[cacheable(json)]` on the field, or use an enum";

/// Where the fields of a struct are stored.
pub(crate) struct Site<'a> {
    pub(crate) record: &'a Record<'a>,
    fields: Vec<&'a Field<'a>>,
    pub(crate) library: TokenStream,
    pub(crate) private: TokenStream,
    pub(crate) is_embedded: bool,
}

impl<'a> Site<'a> {
    /// In a hash of their own.
    pub(crate) fn of_record(record: &'a Record<'a>) -> Self {
        let (library, fields) = (record.library(), record.fields.iter().collect());
        Self { record, fields, private: quote!(#library::__private), library, is_embedded: false }
    }

    /// In the hash of the struct that embeds theirs, at the place `__P`.
    pub(crate) fn embedded(record: &'a Record<'a>) -> Self {
        Self { is_embedded: true, ..Self::of_record(record) }
    }

    /// Without some of the fields.
    pub(crate) fn only(mut self, is_kept: impl Fn(&Field) -> bool) -> Self {
        self.fields.retain(|field| is_kept(field));
        self
    }

    pub(crate) fn stored(&self) -> impl Iterator<Item = &'a Field<'a>> {
        self.fields.iter().copied().filter(|field| field.is_stored())
    }

    /// The parameters of the impls.
    pub(crate) fn generics(&self) -> Option<TokenStream> {
        let (private, name) = (&self.private, derived(&self.record.original.ident));
        self.is_embedded.then(|| quote!(<__P: #private::Place<Embedded = #name>>))
    }

    /// The texts that a field's code needs: its prefix, if it is an embedded struct, or else its name and its aliases.
    fn texts_of(field: &Field) -> Vec<String> {
        match (field.is_embedded(), field.is_spread()) {
            (true, true) => vec![field.prefix()],
            (true, false) => vec![field.prefix(), field.name().into_owned()],
            (false, _) => {
                std::iter::once(field.name().into_owned()).chain(field.aliases().map(str::to_owned)).collect()
            }
        }
    }

    /// One of these texts.
    fn text(&self, field: &Field, at: usize) -> TokenStream {
        if !self.is_embedded {
            return Self::texts_of(field)[at].to_token_stream();
        }
        let before = self.stored().take_while(|other| other.ident != field.ident);
        let at = at + before.map(|other| Self::texts_of(other).len()).sum::<usize>();
        let private = &self.private;
        quote!(#private::Text::as_str(&__At::<__P>::TEXTS[#at]))
    }

    /// The constant with a field's codec.
    pub(crate) fn codec(&self, field: &Field) -> TokenStream {
        let name = codec_name(field);
        if self.is_embedded { quote!(__At::<__P>::#name) } else { quote!(#name) }
    }

    /// The type of the place where a field embeds its struct.
    fn place(&self, field: &Field) -> TokenStream {
        let name = place_name(field);
        if self.is_embedded { quote!(#name<__P>) } else { quote!(#name) }
    }

    /// An item of a field's impl of `Embeddable`. Its tokens have the span of the field's type: if the struct doesn't implement
    /// `Embeddable`, the compiler reports that there, and not at each use.
    pub(crate) fn embeddable(&self, field: &Field, item: &str) -> TokenStream {
        let ty = self.record.type_without_option(field);
        let (library, place, span) = (&self.library, self.place(field), ty.span());
        let item = Ident::new(item, span);
        quote_spanned!(span=> <#ty as #library::Embeddable<#place>>::#item)
    }

    /// The types of the places where structs are embedded.
    pub(crate) fn places(&self) -> TokenStream {
        let (private, owner) = (&self.private, derived(&self.record.original.ident));
        let generics = self.generics();
        let places = self.stored().filter(|field| field.is_embedded()).map(|field| {
            let (ident, name, place) = (derived(field.ident), place_name(field), self.place(field));
            let ty = self.record.type_without_option(field);
            let (prefix, vis) = (self.text(field, 0), narrower(&self.record.original.vis, &field.original.vis));
            let (record, of) = match (field.is_spread(), self.is_embedded) {
                // Handles of its fields are never used: it has one of its own.
                (false, _) => (ty.clone(), quote!(__record)),
                (true, false) => (owner.to_token_stream(), quote!(&__record.#ident)),
                (true, true) => {
                    (quote!(<__P as #private::Place>::Record), quote!(&<__P as #private::Place>::of(__record).#ident))
                }
            };
            let definition = match self.is_embedded {
                true => quote!(#vis struct #name<__P>(::core::marker::PhantomData<__P>);),
                false => quote!(#vis struct #name;),
            };
            quote! {
                #[allow(non_camel_case_types, unreachable_pub)]
                #definition

                #[automatically_derived]
                impl #generics #private::Place for #place {
                    type Record = #record;
                    type Embedded = #ty;
                    const PREFIX: &'static ::core::primitive::str = #prefix;

                    fn of(__record: &Self::Record) -> &Self::Embedded {
                        #of
                    }
                }
            }
        });
        quote!(#(#places)*)
    }

    /// The constants with the codecs, and what they need.
    pub(crate) fn codecs(&self) -> TokenStream {
        self.codecs_by(|field| self.codec_value(field))
    }

    pub(crate) fn codecs_by(&self, value: impl Fn(&Field) -> TokenStream) -> TokenStream {
        let private = &self.private;
        let codecs = self.stored().filter(|field| !field.is_spread()).map(|field| {
            let (name, ty, codec) = (codec_name(field), self.record.type_of(field), value(field));
            let aliases_name = aliases_name(field);
            // A constant of its own, or it would be dropped too soon.
            let aliases = self.aliases_of(field);
            let aliases = aliases
                .map(|aliases| quote!(const #aliases_name: &'static [&'static ::core::primitive::str] = #aliases;));
            quote!(#aliases const #name: #private::Codec<#ty> = #codec;)
        });
        if !self.is_embedded {
            return quote!(#(#codecs)*);
        }
        let generics = self.generics();
        let texts: Vec<_> = self.stored().flat_map(Self::texts_of).collect();
        let count = texts.len();
        quote! {
            struct __At<__P>(::core::marker::PhantomData<__P>);

            #[allow(non_upper_case_globals)]
            impl #generics __At<__P> {
                const TEXTS: &'static [#private::Text; #count] =
                    &[#(#private::join(<__P as #private::Place>::PREFIX, #texts)),*];

                #(#codecs)*
            }
        }
    }

    fn codec_value(&self, field: &Field) -> TokenStream {
        let (private, ty) = (&self.private, self.record.type_of(field));
        if field.is_embedded() {
            let (part, name) = (self.embeddable(field, "OPTIONAL"), self.text(field, 1));
            return quote!(#private::optional_part(#name, #part));
        }
        let mut codec = self.conversion(field);
        if field.attributes.default.is_some() {
            codec = quote!(#private::or_default::<#ty>(#codec));
        }
        let name = aliases_name(field);
        let aliases = self.aliases_of(field).map(|_| match self.is_embedded {
            true => quote!(.aliases(__At::<__P>::#name)),
            false => quote!(.aliases(#name)),
        });
        quote!(#codec #aliases)
    }

    fn aliases_of(&self, field: &Field) -> Option<TokenStream> {
        let aliases: Vec<_> = (1..Self::texts_of(field).len()).map(|at| self.text(field, at)).collect();
        (!field.is_embedded() && !aliases.is_empty()).then(|| quote!(&[#(#aliases),*]))
    }

    fn conversion(&self, field: &Field) -> TokenStream {
        let private = &self.private;
        let name = self.text(field, 0);
        let ty = self.record.type_of(field);
        let of_type = |role| field_type::codec(private, role, &field.original.ty, &ty, &name);
        if field.is_id() {
            return of_type("Id");
        }
        if field.attributes.json.is_some() {
            return match field.in_option() {
                Some(_) => {
                    let ty = self.record.type_without_option(field);
                    quote!(#private::optional_json::<#ty>(#name))
                }
                None => quote!(#private::json::<#ty>(#name)),
            };
        }
        let Some((with, module)) = field.attributes.with.as_ref().zip(value(&field.attributes.with)) else {
            return of_type("Field");
        };
        // Errors in the module's functions are shown at the text that names the module.
        let span = derived_span(with.argument().span());
        let encode = quote_spanned!(span=> ::core::convert::Into::into(#module::encode(__value)));
        let decode = quote_spanned!(span=>
            ::core::result::Result::map_err(#module::decode(&__bytes), ::core::convert::Into::into)
        );
        let (encode, decode, optional) = match field.in_option() {
            Some(_) => (
                quote_spanned!(span=> |__value| ::core::result::Result::Ok(match __value {
                    ::core::option::Option::Some(__value) => ::core::option::Option::Some(#encode),
                    ::core::option::Option::None => ::core::option::Option::None,
                })),
                quote_spanned!(span=> |__bytes| ::core::result::Result::map(#decode, ::core::option::Option::Some)),
                Some(quote!(.optional())),
            ),
            None => (
                quote_spanned!(span=> |__value| ::core::result::Result::Ok(::core::option::Option::Some(#encode))),
                quote_spanned!(span=> |__bytes| #decode),
                None,
            ),
        };
        quote_spanned!(span=> #private::Codec::<#ty>::with(#name, #encode, #decode).trying_texts() #optional)
    }

    /// The names of all stored fields, as a list of `Name`.
    pub(crate) fn names(&self) -> TokenStream {
        let private = &self.private;
        let names = self.stored().map(|field| match field.is_embedded() {
            true => self.names_of_embedded(field, "NAMES"),
            false => {
                let name = self.text(field, 0);
                quote!(#private::Name::Field(#name))
            }
        });
        quote!(&[#(#names),*])
    }

    /// The aliases of all stored fields, as a list of `Name`.
    pub(crate) fn aliases(&self) -> TokenStream {
        let private = &self.private;
        let aliases = self.stored().flat_map(|field| {
            if field.is_embedded() {
                return vec![self.names_of_embedded(field, "ALIASES")];
            }
            let aliases = (1..Self::texts_of(field).len()).map(|at| self.text(field, at));
            aliases.map(|alias| quote!(#private::Name::Field(#alias))).collect()
        });
        quote!(&[#(#aliases),*])
    }

    fn names_of_embedded(&self, field: &Field, list: &str) -> TokenStream {
        let (private, names) = (&self.private, self.embeddable(field, list));
        quote!(#private::Name::Embedded(#names))
    }

    /// Checks of the fields' values, which need constants of their types.
    pub(crate) fn value_checks(&self) -> TokenStream {
        let (private, name) = (&self.private, derived(&self.record.original.ident));
        let checked = self.stored().filter(|field| !field.is_id() && !field.is_spread() && !field.is_converted());
        let checks = checked.map(|field| {
            let codec = codec_name(field);
            // The same in every place, so that it is checked in none.
            let at = self.is_embedded.then(|| quote!(__At::<#private::Nowhere<#name>>::));
            let mistake = if field.is_embedded() { ALL_ABSENT } else { AMBIGUOUS };
            quote_spanned! {derived_span(field.original.ty.span())=>
                const _: () = ::core::assert!(!#private::Codec::is_ambiguous(&#at #codec), #mistake);
            }
        });
        quote!(#(#checks)*)
    }

    /// Whether one of the fields is in every hash, as an expression.
    pub(crate) fn is_always_stored(&self) -> TokenStream {
        let private = &self.private;
        let fields = self.stored().map(|field| {
            if field.is_spread() {
                return self.embeddable(field, "IS_ALWAYS_STORED");
            }
            let codec = self.codec(field);
            quote!(#private::Codec::is_always_stored(&#codec))
        });
        quote!(false #(|| #fields)*)
    }

    pub(crate) fn encode(&self) -> TokenStream {
        let private = &self.private;
        let puts = self.stored().map(|field| {
            let ident = derived(field.ident);
            if field.is_spread() {
                let encode = self.embeddable(field, "encode");
                return quote!(#encode(&self.#ident, __record));
            }
            let codec = self.codec(field);
            quote!(#private::RecordWriter::put(__record, &#codec, &self.#ident))
        });
        quote! {
            fn encode(&self, __record: &mut #private::RecordWriter) {
                #(#puts;)*
            }
        }
    }

    pub(crate) fn decode(&self) -> TokenStream {
        let private = &self.private;
        let reads = self.fields.iter().map(|field| {
            let ident = derived(field.ident);
            if !field.is_stored() {
                let ty = self.record.type_of(field);
                return quote!(#ident: <#ty as ::core::default::Default>::default());
            }
            if field.is_spread() {
                let decode = self.embeddable(field, "decode");
                return quote!(#ident: #decode(__record)?);
            }
            let codec = self.codec(field);
            quote!(#ident: #private::RecordReader::read(__record, &#codec)?)
        });
        quote! {
            fn decode(
                __record: &mut #private::RecordReader<'_>,
            ) -> ::core::result::Result<Self, #private::FieldError> {
                ::core::result::Result::Ok(Self { #(#reads,)* })
            }
        }
    }

    /// `None` if all fields are stored.
    pub(crate) fn reset_skipped(&self) -> Option<TokenStream> {
        let resets: Vec<_> = self.fields.iter().filter_map(|field| self.reset(field)).collect();
        (!resets.is_empty()).then(|| {
            quote! {
                fn reset_skipped(&mut self) {
                    #(#resets)*
                }
            }
        })
    }

    fn reset(&self, field: &Field) -> Option<TokenStream> {
        let ident = derived(field.ident);
        if !field.is_stored() {
            let ty = self.record.type_of(field);
            return Some(quote!(self.#ident = <#ty as ::core::default::Default>::default();));
        }
        let reset = field.is_embedded().then(|| self.embeddable(field, "reset_skipped"))?;
        Some(match field.is_spread() {
            true => quote!(#reset(&mut self.#ident);),
            false => quote! {
                if let ::core::option::Option::Some(__embedded) = &mut self.#ident {
                    #reset(__embedded);
                }
            },
        })
    }
}

/// The narrower of the visibilities of a struct and of its field, for a type that names the types of both.
fn narrower<'a>(of_struct: &'a Visibility, of_field: &'a Visibility) -> &'a Visibility {
    match (of_struct, of_field) {
        (Visibility::Public(_), _) | (_, Visibility::Inherited) => of_field,
        (Visibility::Restricted(restricted), Visibility::Restricted(_)) if restricted.path.is_ident("crate") => {
            of_field
        }
        _ => of_struct,
    }
}

fn codec_name(field: &Field) -> Ident {
    format_ident!("__codec_{}", field.ident.unraw(), span = derived_span(field.ident.span()))
}

fn aliases_name(field: &Field) -> Ident {
    format_ident!("__aliases_{}", field.ident.unraw(), span = derived_span(field.ident.span()))
}

fn place_name(field: &Field) -> Ident {
    format_ident!("__place_{}", field.ident.unraw(), span = derived_span(field.ident.span()))
}
