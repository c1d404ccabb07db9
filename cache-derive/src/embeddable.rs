//! The code that `#[derive(Embeddable)]` generates: the same for every place where the struct is embedded, by a parameter for the
//! place, which has the prefix of the names.

use proc_macro2::TokenStream;
use quote::quote;
use syn::DeriveInput;

use crate::attributes::{OF_EMBEDDED, OF_EMBEDDED_FIELDS};
use crate::fields::Site;
use crate::mistakes::Mistakes;
use crate::model::Record;
use crate::tokens::derived;
use crate::{rules, stub};

pub(crate) fn embeddable(input: &DeriveInput) -> TokenStream {
    let mut mistakes = Mistakes::default();
    let record = Record::read(input, OF_EMBEDDED, OF_EMBEDDED_FIELDS, &mut mistakes);
    rules::check_embeddable(&record, &mut mistakes);
    mistakes.or_code(|| implementation(&record), || stub::embeddable(&record))
}

/// The parts that differ between a working impl and a stub.
pub(crate) struct Parts {
    /// The places, codecs and checks of the fields, and the struct of the handles.
    pub(crate) fields: TokenStream,
    pub(crate) members: TokenStream,
}

pub(crate) fn assemble(record: &Record, site: &Site, parts: Parts) -> TokenStream {
    let library = record.library();
    let Parts { fields, members } = parts;
    let name = derived(&record.original.ident);
    let (generics, handles, handle_values) = (site.generics(), site.handles_name(), site.handle_values());

    quote! {
        #[allow(deprecated)]
        const _: () = {
            #fields

            #[automatically_derived]
            impl #generics #library::Embeddable<__P> for #name {
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
    let site = Site::embedded(record);
    let (places, codecs, handles_struct) = (site.places(), site.codecs(), site.handles_struct());
    let (names, aliases, is_always_stored) = (site.names(), site.aliases(), site.is_always_stored());
    let (encode, decode, reset_skipped) = (site.encode(), site.decode(), site.reset_skipped());
    let members = quote! {
        const NAMES: &'static [#private::Name] = #names;
        const ALIASES: &'static [#private::Name] = #aliases;
        const IS_ALWAYS_STORED: ::core::primitive::bool = #is_always_stored;

        #encode
        #decode
        #reset_skipped
    };
    let value_checks = site.value_checks();
    assemble(record, &site, Parts { fields: quote!(#places #codecs #handles_struct #value_checks), members })
}
