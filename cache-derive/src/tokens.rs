//! The user's tokens, adapted to their place in generated code.

use proc_macro2::{Group, Ident, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::Type;

/// The name with its place in the source, but marked as generated code, so that lints ignore it.
pub(crate) fn derived(name: &Ident) -> Ident {
    let mut name = name.clone();
    name.set_span(derived_span(name.span()));
    name
}

pub(crate) fn derived_span(span: Span) -> Span {
    span.resolved_at(Span::call_site())
}

/// These tokens at another place, where the compiler then shows their mistakes.
pub(crate) fn located(tokens: TokenStream, span: Span) -> TokenStream {
    let locate = |mut token: TokenTree| {
        if let TokenTree::Group(group) = &token {
            token = TokenTree::Group(Group::new(group.delimiter(), located(group.stream(), span)));
        }
        token.set_span(token.span().located_at(span));
        token
    };
    tokens.into_iter().map(locate).collect()
}

/// The type of a field as written outside of its struct: with the struct's name in place of `Self`.
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

/// Whether these tokens contain the name.
pub(crate) fn mention(tokens: TokenStream, name: &str) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == name,
        TokenTree::Group(group) => mention(group.stream(), name),
        _ => false,
    })
}
