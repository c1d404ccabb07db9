//! The values of attributes, one function for each kind of value.

use quote::ToTokens;
use syn::{Error, Expr, ExprArray, ExprLit, ExprPath, Lit, LitStr, Meta, Path, Result};

use crate::case::{CASES, Case};
use crate::mistakes::Mistakes;
use crate::{duration, names, tokens};

/// An attribute without a value, such as `id`.
pub(crate) fn none(meta: &Meta) -> Result<()> {
    match meta {
        Meta::Path(_) => Ok(()),
        _ => {
            let word = word(meta);
            Err(Error::new_spanned(meta, format!("`{word}` takes no value: write `#[cacheable({word})]`")))
        }
    }
}

/// The attribute `json`, which needs the feature of that name.
pub(crate) fn json(meta: &Meta) -> Result<()> {
    none(meta)?;
    if cfg!(feature = "json") {
        return Ok(());
    }
    Err(Error::new_spanned(
        meta,
        "`json` needs the feature `json` of cache-aside: enable it with `cargo add cache-aside --features json`",
    ))
}

/// A namespace or an entity.
pub(crate) fn key_part(meta: &Meta) -> Result<String> {
    let literal = text(meta, "..")?;
    let text = literal.value();
    if names::is_key_part(&text) {
        return Ok(text);
    }
    let word = word(meta);
    let message = format!("`{word}` is a part of every key: use only lower-case letters, digits, `_` and `-`");
    Err(Error::new_spanned(literal, message))
}

/// A duration, in milliseconds.
pub(crate) fn millis(meta: &Meta) -> Result<u64> {
    let literal = text(meta, "30s")?;
    let millis = duration::millis(&literal.value());
    millis.map_err(|mistake| Error::new_spanned(literal, format!("`{}` {mistake}", word(meta))))
}

/// A version in a list.
pub(crate) struct Version {
    pub(crate) original: Expr,
    /// `None` for the keys without a version, written `none` in the list.
    pub(crate) number: Option<u32>,
}

/// A list of different versions.
pub(crate) fn versions(meta: &Meta) -> Result<Vec<Version>> {
    let mistake = "`also_invalidates` takes the versions of other releases: write `also_invalidates = [2]`, with `none` \
                   for the keys without a version";
    let value = expression(meta, mistake)?;
    let Expr::Array(ExprArray { elems, .. }) = value else {
        return Err(Error::new_spanned(value, mistake));
    };
    if elems.is_empty() {
        return Err(Error::new_spanned(value, "the list of `also_invalidates` is empty: remove it"));
    }
    let mut mistakes = Mistakes::default();
    let mut versions: Vec<Version> = Vec::new();
    for original in elems {
        let number = match plain(original) {
            Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => number.base10_parse().ok().map(Some),
            Expr::Path(ExprPath { path, .. }) if path.is_ident("none") => Some(None),
            _ => None,
        };
        match number {
            None => mistakes.add(original, mistake),
            Some(number) if versions.iter().any(|version| version.number == number) => {
                let message = format!("`{}` is listed twice: remove one", original.to_token_stream());
                mistakes.add(original, message);
            }
            Some(number) => versions.push(Version { original: original.clone(), number }),
        }
    }
    mistakes.into_error().map_or(Ok(versions), Err)
}

/// A number above zero, or `None` for an attribute without a value.
pub(crate) fn beta(meta: &Meta) -> Result<Option<f64>> {
    if let Meta::Path(_) = meta {
        return Ok(None);
    }
    let mistake =
        "`refresh_ahead` takes a number above 0: write `refresh_ahead`, which is 1.0, or `refresh_ahead = 2.0`";
    let value = expression(meta, mistake)?;
    let beta = match value {
        Expr::Lit(ExprLit { lit: Lit::Float(number), .. }) => number.base10_parse::<f64>().ok(),
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => number.base10_parse::<f64>().ok(),
        _ => None,
    };
    let beta = beta.filter(|beta| beta.is_finite() && *beta > 0.0);
    beta.map(Some).ok_or_else(|| Error::new_spanned(value, mistake))
}

pub(crate) fn version(meta: &Meta) -> Result<u32> {
    let mistake = "`version` takes a number from 0 to 4294967295: write `version = 1`";
    match expression(meta, mistake)? {
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => {
            number.base10_parse().map_err(|_| Error::new_spanned(number, mistake))
        }
        other => Err(Error::new_spanned(other, mistake)),
    }
}

pub(crate) fn field_name(meta: &Meta) -> Result<String> {
    let literal = text(meta, "..")?;
    let name = literal.value();
    if name.is_empty() {
        return Err(Error::new_spanned(literal, "a field's name can't be empty"));
    }
    if name.starts_with('~') {
        return Err(Error::new_spanned(literal, "names that begin with `~` are reserved: choose another one"));
    }
    Ok(name)
}

/// The prefix of an embedded struct's fields, which may be empty.
pub(crate) fn prefix(meta: &Meta) -> Result<String> {
    let literal = text(meta, "..")?;
    if literal.value().starts_with('~') {
        return Err(Error::new_spanned(literal, "names that begin with `~` are reserved: choose another prefix"));
    }
    Ok(literal.value())
}

/// The stored text of a variant.
pub(crate) fn variant_text(meta: &Meta) -> Result<String> {
    let literal = text(meta, "..")?;
    if literal.value().is_empty() {
        return Err(Error::new_spanned(literal, "a variant's text can't be empty"));
    }
    Ok(literal.value())
}

/// A rule of `rename_all`.
pub(crate) fn case(meta: &Meta) -> Result<Case> {
    let literal = text(meta, "snake_case")?;
    let rule = literal.value();
    if let Some((_, case)) = CASES.iter().find(|(name, _)| *name == rule) {
        return Ok(*case);
    }
    let names: Vec<_> = CASES.iter().map(|(name, _)| *name).collect();
    let message = format!("unknown rule `{rule}`; expected one of `{}`", names.join("`, `"));
    Err(Error::new_spanned(literal, message))
}

/// The module in the text of `with`, as a path with the span of that text.
pub(crate) fn module(meta: &Meta) -> Result<Path> {
    let literal = text(meta, "module")?;
    let message = "`with` takes the path of a module with the functions `encode` and `decode`";
    let derived = LitStr::new(&literal.value(), tokens::derived_span(literal.span()));
    derived.parse_with(Path::parse_mod_style).map_err(|_| Error::new_spanned(literal, message))
}

/// The path of this crate, as a path or as text.
pub(crate) fn crate_path(meta: &Meta) -> Result<Path> {
    let mistake = "`crate` takes a path: write `crate = path::to::cache_aside`";
    match expression(meta, mistake)? {
        Expr::Path(ExprPath { qself: None, path, .. }) => Ok(path.clone()),
        Expr::Lit(ExprLit { lit: Lit::Str(literal), .. }) => {
            literal.parse_with(Path::parse_mod_style).map_err(|_| Error::new_spanned(literal, mistake))
        }
        other => Err(Error::new_spanned(other, mistake)),
    }
}

/// The attribute's name as it was typed.
pub(crate) fn word(meta: &Meta) -> String {
    meta.path().to_token_stream().to_string().replace(' ', "")
}

fn text<'a>(meta: &'a Meta, example: &str) -> Result<&'a LitStr> {
    let word = word(meta);
    let mistake = format!("`{word}` takes text: write `{word} = \"{example}\"`");
    match expression(meta, &mistake)? {
        Expr::Lit(ExprLit { lit: Lit::Str(literal), .. }) => Ok(literal),
        other => Err(Error::new_spanned(other, mistake)),
    }
}

fn expression<'a>(meta: &'a Meta, mistake: &str) -> Result<&'a Expr> {
    let Meta::NameValue(meta) = meta else {
        return Err(Error::new_spanned(meta, mistake));
    };
    Ok(plain(&meta.value))
}

/// The expression without the group around it that a user's macro may have added.
fn plain(mut value: &Expr) -> &Expr {
    while let Expr::Group(group) = value {
        value = &group.expr;
    }
    value
}
