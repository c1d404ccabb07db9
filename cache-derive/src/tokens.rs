//! Tokens of the user, made fit for the place where generated code repeats them.

use proc_macro2::{Group, Ident, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::Type;

/// The name, at its place in the source, but as part of what the derive wrote: so that lints leave it alone.
pub(crate) fn derived(name: &Ident) -> Ident {
    let mut name = name.clone();
    name.set_span(derived_span(name.span()));
    name
}

pub(crate) fn derived_span(span: Span) -> Span {
    span.resolved_at(Span::call_site())
}

/// The type of a field as it reads outside of its struct: with the struct's name for `Self`.
pub(crate) fn outside(ty: &Type, name: &Ident) -> TokenStream {
    let tokens = ty.to_token_stream();
    if mention(tokens.clone(), "Self") { replace_self(tokens, name) } else { tokens }
}

fn replace_self(tokens: TokenStream, name: &Ident) -> TokenStream {
    let replace = |token| match token {
        TokenTree::Ident(ident) if ident == "Self" => {
            let mut name = name.clone();
            name.set_span(ident.span());
            TokenTree::Ident(name)
        }
        TokenTree::Group(group) => {
            let mut replaced = Group::new(group.delimiter(), replace_self(group.stream(), name));
            replaced.set_span(group.span());
            TokenTree::Group(replaced)
        }
        other => other,
    };
    tokens.into_iter().map(replace).collect()
}

/// Whether the name stands somewhere in these tokens.
pub(crate) fn mention(tokens: TokenStream, name: &str) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == name,
        TokenTree::Group(group) => mention(group.stream(), name),
        _ => false,
    })
}
