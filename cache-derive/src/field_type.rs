//! Recognises types by their names. A derive sees names, not types, so it doesn't recognise a type under an alias.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{GenericArgument, PathArguments, PathSegment, Type};

/// The type in an `Option`, if it is one.
pub(crate) fn in_option(ty: &Type) -> Option<&Type> {
    argument(ty, &["Option"])
}

/// The codec of a field of this type without attributes; `role` is `Field`, or `Id` for a part of the id. The type is `written` as
/// at the place of the code.
pub(crate) fn codec(
    private: &TokenStream,
    role: &str,
    ty: &Type,
    written: &TokenStream,
    name: &TokenStream,
) -> TokenStream {
    match (feature(ty), role) {
        (Some(feature), _) => {
            let (feature, role) = (format_ident!("{feature}"), format_ident!("{role}"));
            quote!(#private::Codec::named(<#written as #private::features::#feature::#role>::CODEC, #name))
        }
        (None, "Id") => quote!(#private::id::<#written>(#name)),
        (None, _) => quote!(#private::native::<#written>(#name)),
    }
}

/// The feature that a type needs, as the module of the library that has its codec.
pub(crate) fn feature(ty: &Type) -> Option<&'static str> {
    if let Some(inner) = argument(ty, &["Option", "Box", "Arc"]) {
        return feature(inner);
    }
    let (last, before) = segments(ty)?;
    let is_within = |name: &str| before.iter().any(|segment| segment.ident == name);
    Some(match last.ident.to_string().as_str() {
        "BigDecimal" => "bigdecimal",
        "Bytes" => "bytes",
        "CompactString" => "compact_str",
        "DateTime" | "Date" | "Time" if is_within("civil") || is_within("jiff") => "jiff",
        "Timestamp" | "Zoned" => "jiff",
        "DateTime" if !last.arguments.is_none() => "chrono",
        "NaiveDate" | "NaiveDateTime" | "NaiveTime" => "chrono",
        "Date" | "Time" | "OffsetDateTime" | "PrimitiveDateTime" => "time",
        "Decimal" => "rust_decimal",
        "SmolStr" => "smol_str",
        "Ulid" => "ulid",
        "Url" => "url",
        "Uuid" => "uuid",
        "Value" if is_within("serde_json") => "json",
        _ => return None,
    })
}

/// Whether it is chrono's `DateTime<Local>`, or contains it.
pub(crate) fn is_local_time(ty: &Type) -> bool {
    if let Some(inner) = argument(ty, &["Option", "Box", "Arc"]) {
        return is_local_time(inner);
    }
    argument(ty, &["DateTime"]).and_then(segments).is_some_and(|(last, _)| last.ident == "Local")
}

/// Whether it is a `PhantomData`, which has no value.
pub(crate) fn is_marker(ty: &Type) -> bool {
    segments(ty).is_some_and(|(last, _)| last.ident == "PhantomData")
}

/// Whether it is a text.
pub(crate) fn is_text(ty: &Type) -> bool {
    segments(ty).is_some_and(|(last, _)| ["String", "SmolStr", "CompactString"].iter().any(|name| last.ident == name))
        || argument(ty, &["Box", "Arc"]).and_then(segments).is_some_and(|(last, _)| last.ident == "str")
}

/// The only argument of a type with one of these names.
fn argument<'a>(ty: &'a Type, names: &[&str]) -> Option<&'a Type> {
    let (last, _) = segments(ty)?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return None;
    };
    match arguments.args.first() {
        Some(GenericArgument::Type(argument)) if arguments.args.len() == 1 => {
            names.iter().any(|name| last.ident == name).then_some(argument)
        }
        _ => None,
    }
}

/// The last segment of a path, and those before.
fn segments(ty: &Type) -> Option<(&PathSegment, Vec<&PathSegment>)> {
    let path = match ty {
        Type::Path(path) if path.qself.is_none() => &path.path,
        Type::Group(group) => return segments(&group.elem),
        Type::Paren(paren) => return segments(&paren.elem),
        _ => return None,
    };
    let mut segments: Vec<_> = path.segments.iter().collect();
    Some((segments.pop()?, segments))
}
