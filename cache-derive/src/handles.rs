//! The code for the handles of a struct's fields: `Product::FIELDS.stock`, and `Customer::FIELDS.home.city` for the fields of an
//! embedded struct.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::spanned::Spanned;

use crate::fields::Site;
use crate::model::Field;
use crate::tokens::{derived, derived_span, located, mention};

impl<'a> Site<'a> {
    /// `ProductFields`, or a longer name if a field has a type of that name.
    fn handles_ident(&self) -> Ident {
        let name = &self.record.original.ident;
        let mut handles = format!("{}Fields", name.unraw());
        while self.record.fields.iter().any(|field| mention(field.original.ty.to_token_stream(), &handles)) {
            handles.push('_');
        }
        Ident::new(&handles, derived_span(name.span()))
    }

    /// Its name where it is used. There it is at the type of an embedded struct, if there is one: see [`Site::embeddable`].
    fn used_handles_ident(&self) -> Ident {
        let mut handles = self.handles_ident();
        if let Some(spread) = self.handled().find(|field| field.is_spread()) {
            handles.set_span(self.record.type_of(spread).span());
        }
        handles
    }

    /// The type of the struct of the field handles.
    pub(crate) fn handles_name(&self) -> TokenStream {
        let handles = self.used_handles_ident();
        if self.is_embedded { quote!(#handles<__P>) } else { quote!(#handles) }
    }

    /// The fields with a handle: all that are stored, except for the id.
    fn handled(&self) -> impl Iterator<Item = &'a Field<'a>> {
        self.stored().filter(|field| !field.is_id())
    }

    pub(crate) fn handles_struct(&self) -> TokenStream {
        let (library, private, handles) = (&self.library, &self.private, self.handles_ident());
        let (name, vis, generics) = (derived(&self.record.original.ident), &self.record.original.vis, self.generics());
        let owner = match self.is_embedded {
            true => quote!(<__P as #private::Place>::Record),
            false => name.to_token_stream(),
        };
        let doc = format!("The handles of the fields of `{name}`.");
        let declarations = self.handled().map(|field| {
            let (mut vis, mut ident) = (field.original.vis.to_token_stream(), derived(field.ident));
            let mut ty = self.record.type_of(field);
            if field.is_spread() {
                // As in [`Site::embeddable`].
                vis = located(vis, ty.span());
                ident.set_span(ty.span());
                ty = self.embeddable(field, "Fields");
            } else {
                ty = quote!(#library::Field<#owner, #ty>);
            }
            let doc = format!("The field `{}`.", field.name());
            quote!(#[doc = #doc] #vis #ident: #ty,)
        });
        let end = self.has_end().then(|| match self.is_embedded {
            true => quote!(__end: ::core::marker::PhantomData<__P>,),
            false => quote!(__end: ::core::marker::PhantomData<()>,),
        });
        quote! {
            #[doc = #doc]
            #vis struct #handles #generics {
                #(#declarations)*
                #end
            }
        }
    }

    /// The value of `FIELDS`.
    pub(crate) fn handle_values(&self) -> TokenStream {
        let (library, private) = (&self.library, &self.private);
        let handles = self.used_handles_ident();
        let values = self.handled().map(|field| {
            let mut ident = derived(field.ident);
            if field.is_spread() {
                ident.set_span(self.record.type_of(field).span());
                let handles = self.embeddable(field, "FIELDS");
                return quote!(#ident: #handles,);
            }
            let codec = self.codec(field);
            let of = match self.is_embedded {
                true => quote!(&<__P as #private::Place>::of(__record).#ident),
                false => quote!(&__record.#ident),
            };
            quote!(#ident: #library::Field::new(#codec, |__record| #of),)
        });
        let end = self.has_end().then(|| quote!(__end: ::core::marker::PhantomData,));
        quote!(#handles { #(#values)* #end })
    }

    /// Whether another field comes after the handles. It uses the type parameter of an embedded struct. It also avoids a second
    /// error for a struct without `Embeddable`: only the last field of a struct may be unsized, so its size is checked apart.
    fn has_end(&self) -> bool {
        self.is_embedded || self.handled().any(Field::is_spread)
    }
}
