//! The derives in crates with strict lints, and next to names that could conflict with generated code.
//!
//! Most of this is tested by compiling: clippy's lints by `cargo clippy --all-targets`.

#![deny(warnings, unused, nonstandard_style, future_incompatible, deprecated)]
#![deny(missing_docs, missing_debug_implementations, missing_copy_implementations)]
#![deny(unreachable_pub, unnameable_types, unused_qualifications, unused_results, unused_lifetimes)]
#![deny(single_use_lifetimes, elided_lifetimes_in_paths, explicit_outlives_requirements, let_underscore_drop)]
#![deny(trivial_casts, trivial_numeric_casts, variant_size_differences)]
#![deny(clippy::all, clippy::pedantic)]

/// Public types with private members.
pub mod public {
    use cache_aside::{CacheId, Cacheable, Embeddable, FieldValue};

    /// An enum.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, FieldValue, CacheId)]
    #[cacheable(rename_all = "kebab-case")]
    pub enum Status {
        /// A variant.
        OnSale,
        /// Another one.
        #[cacheable(other)]
        Unknown,
    }

    /// A generic newtype.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, FieldValue)]
    pub struct Secret<V>(V);

    /// An embedded struct with fields of all visibilities.
    #[derive(Debug, Embeddable)]
    #[cacheable(rename_all = "camelCase")]
    pub struct Address {
        /// A public field.
        #[cacheable(alias = "road")]
        pub street_name: String,
        pub(crate) city: Option<String>,
        #[cacheable(embed)]
        point: Point,
        #[cacheable(skip)]
        seen: u32,
    }

    #[derive(Debug, Embeddable)]
    struct Point {
        latitude: f64,
    }

    /// A record that exists once, with embedded structs.
    #[derive(Debug, Cacheable)]
    #[cacheable(singleton)]
    pub struct Settings {
        /// A public field.
        #[cacheable(embed)]
        pub home: Address,
        #[cacheable(embed)]
        work: Option<Address>,
        /// An enum.
        pub status: Status,
        secret: Secret<String>,
    }

    /// A newtype.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, FieldValue, CacheId)]
    pub struct ProductId(u64);

    /// A record with fields of all visibilities, some of a private type.
    #[derive(Debug, Cacheable)]
    #[cacheable(namespace = "shop", not_found_ttl = "30s", version = 3, also_invalidates = [2])]
    pub struct Product {
        /// The id.
        #[cacheable(id)]
        pub id: ProductId,
        /// A public field.
        pub name: String,
        #[cacheable(alias = "cost")]
        pub(crate) price: i64,
        pub(super) stock: u32,
        pub(in crate::public) margin: f32,
        #[cacheable(json)]
        tags: Vec<Tag>,
        #[cacheable(skip)]
        seen: Tag,
        #[cacheable(with = "letter")]
        grade: Grade,
        #[cacheable(default)]
        hidden: bool,
    }

    #[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
    struct Tag(String);

    #[derive(Debug)]
    struct Grade(u32);

    mod letter {
        use super::Grade;

        pub(super) fn encode(grade: &Grade) -> String {
            grade.0.to_string()
        }

        pub(super) fn decode(text: &[u8]) -> Result<Grade, &'static str> {
            text.first().map(|letter| Grade(u32::from(*letter))).ok_or("no grade")
        }
    }

    #[test]
    fn handles_are_seen_as_their_fields_are() {
        let Product { id, name, price, stock, margin, tags, seen, grade, hidden } = Product {
            id: ProductId(7),
            name: String::new(),
            price: 0,
            stock: 0,
            margin: 0.0,
            tags: Vec::new(),
            seen: Tag(String::new()),
            grade: Grade(0),
            hidden: false,
        };
        drop((id, price, stock, margin, seen, hidden));
        drop([Product::FIELDS.name.set(name), Product::FIELDS.tags.set(tags), Product::FIELDS.grade.set(grade)]);
        assert_eq!(Product::FIELDS.margin.name(), "margin");
    }
}

#[test]
fn handles_of_another_module() {
    assert_eq!(public::Product::FIELDS.price.name(), "price");
    assert_eq!(public::Product::FIELDS.stock.name(), "stock");
}

mod private {
    use cache_aside::Cacheable;

    #[derive(Cacheable)]
    pub(super) struct First {
        #[cacheable(id)]
        pub(super) id: u64,
        pub(super) name: String,
    }

    #[derive(Cacheable)]
    pub(super) struct Second {
        #[cacheable(id)]
        pub(super) id: u64,
        pub(super) name: Option<String>,
    }
}

#[test]
fn two_in_one_module() {
    let first = private::First { id: 1, name: String::new() };
    let second = private::Second { id: first.id, name: Some(first.name) };
    drop((second.id, private::First::FIELDS.name.set(String::new()), private::Second::FIELDS.name.set(second.name)));
}

#[test]
fn inside_a_function() {
    use cache_aside::{CacheId, Cacheable, FieldValue};

    #[derive(Clone, PartialEq, Eq, Hash, FieldValue, CacheId)]
    struct LocalId(String);

    #[derive(Cacheable)]
    struct Local {
        #[cacheable(id)]
        id: LocalId,
        #[cacheable(with = "local")]
        name: String,
    }

    mod local {
        pub(super) fn encode(text: &str) -> &[u8] {
            text.as_bytes()
        }

        pub(super) fn decode(text: &[u8]) -> Result<String, std::str::Utf8Error> {
            std::str::from_utf8(text).map(str::to_uppercase)
        }
    }

    let local = Local { id: LocalId("a".to_owned()), name: String::new() };
    assert!(local.id() == LocalId("a".to_owned()));
    drop(Local::FIELDS.name.set(local.name));
}

/// Raw identifiers, and names that violate the naming style but are allowed here.
mod unusual_names {
    use cache_aside::Cacheable;

    #[derive(Cacheable)]
    struct r#Order {
        #[cacheable(id)]
        id: String,
        r#move: i64,
        record: u8,
        value: u8,
        bytes: u8,
        __record: u8,
        fields: u8,
    }

    #[allow(non_camel_case_types, non_snake_case)]
    #[derive(Cacheable)]
    struct order_line {
        #[cacheable(id)]
        id: u8,
        totalCents: u8,
        größe: u8,
    }

    /// The name that the derive would choose for the struct with the field handles.
    #[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
    struct CartFields(bool);

    #[derive(Cacheable)]
    struct Cart {
        #[cacheable(id)]
        id: u8,
        #[cacheable(json)]
        fields: Vec<CartFields>,
    }

    #[test]
    fn are_stored_as_they_read() {
        assert_eq!(Order::SCHEMA.entity, "order");
        assert_eq!(Order::SCHEMA.fields, ["id", "move", "record", "value", "bytes", "__record", "fields"]);
        assert_eq!(order_line::SCHEMA.fields, ["id", "totalCents", "größe"]);
        assert_eq!(Cart::FIELDS.fields.name(), "fields");
    }
}

/// No prelude, and types, values, modules and macros with the names that generated code uses.
mod shadowed {
    #![no_implicit_prelude]
    #![allow(dead_code, unused_macros, non_camel_case_types, reason = "the names are there to be in the way")]

    mod core {}
    mod std {}
    mod alloc {}
    mod cache_aside {}

    macro_rules! get_in_the_way {
        ($($name:ident)*) => {$(
            macro_rules! $name {
                () => { ::core::compile_error!("shadowed") };
            }
        )*};
    }
    get_in_the_way!(assert unreachable panic vec);

    struct Option;
    struct String;
    struct Result;
    struct Vec;
    struct Box;
    struct Cow;
    struct Some;
    struct None;
    struct Ok;
    struct Err;
    struct Self_;
    struct u8;
    struct u32;
    struct u64;
    struct str;
    struct bool;
    struct usize;
    trait Clone {}
    trait Default {}
    trait Into {}
    trait Send {}
    trait Sync {}
    trait Sized {}
    trait Copy {}
    trait Eq {}
    trait Hash {}
    trait Drop {}
    trait Codec {}
    trait Field {}
    trait Schema {}
    trait CacheId {}
    trait FieldValue {}
    trait Embeddable {}
    trait Place {}
    trait Name {}
    trait Cacheable {}

    /// Methods on every type, with the names that generated code calls.
    trait Everything: ::core::marker::Sized {
        fn put(self) {}
        fn or_default(self) {}
        fn clone(self) {}
        fn into(self) {}
        fn map_err(self) {}
        fn aliases(self) {}
        fn read(self) {}
        fn write_id(self) {}
        #[allow(clippy::wrong_self_convention)]
        fn as_millis(self) {}
        fn id(self) {}
        fn encode(self) {}
        fn decode(self) {}
        fn reset_skipped(self) {}
        fn optional(self) {}
        fn trying_texts(self) {}
        #[allow(clippy::wrong_self_convention)]
        fn as_str(self) {}
        fn next_part(self) {}
        fn write_str(self) {}
        fn missing(self) {}
        #[allow(clippy::wrong_self_convention)]
        fn is_other(self) {}
        fn from(self) {}
        fn of(self) {}
    }

    impl<T> Everything for T {}

    #[derive(
        ::cache_aside::CacheId,
        ::cache_aside::FieldValue,
        ::core::clone::Clone,
        ::core::cmp::PartialEq,
        ::core::cmp::Eq,
        ::core::hash::Hash,
    )]
    struct Id(::core::primitive::u64);

    #[derive(
        ::cache_aside::CacheId,
        ::cache_aside::FieldValue,
        ::core::clone::Clone,
        ::core::cmp::PartialEq,
        ::core::cmp::Eq,
        ::core::hash::Hash,
    )]
    enum Kind {
        Plain,
        #[cacheable(other)]
        Other,
    }

    #[derive(::cache_aside::FieldValue)]
    struct Wrapped<V>(V);

    #[derive(::cache_aside::FieldValue)]
    struct Marked<V> {
        r#type: ::core::primitive::u64,
        marker: ::core::marker::PhantomData<V>,
    }

    #[derive(::cache_aside::Embeddable)]
    #[cacheable(rename_all = "camelCase")]
    struct Address {
        #[cacheable(alias = "road")]
        street: ::std::string::String,
        #[cacheable(embed)]
        point: Point,
        #[cacheable(json)]
        tags: ::core::option::Option<::std::vec::Vec<::core::primitive::u8>>,
    }

    #[derive(::cache_aside::Embeddable)]
    struct Point {
        latitude: ::core::primitive::u64,
        #[cacheable(skip)]
        skipped: ::core::primitive::bool,
    }

    #[derive(::cache_aside::Cacheable)]
    #[cacheable(singleton)]
    struct Single {
        #[cacheable(embed)]
        home: Address,
        #[cacheable(embed(prefix = ""))]
        work: ::core::option::Option<Address>,
        kind: Kind,
        wrapped: Wrapped<::core::primitive::u64>,
        marked: Marked<Kind>,
        #[cacheable(with = "text")]
        text: ::core::option::Option<::std::string::String>,
    }

    #[derive(::cache_aside::Cacheable)]
    #[cacheable(namespace = "shop", version = 1, also_invalidates = [2, none], not_found_ttl = "1s")]
    struct Record {
        #[cacheable(id)]
        id: Id,
        #[cacheable(id)]
        part: ::std::string::String,
        name: ::core::option::Option<::std::string::String>,
        #[cacheable(default)]
        count: ::core::primitive::u32,
        #[cacheable(json)]
        tags: ::std::vec::Vec<::core::primitive::u8>,
        #[cacheable(skip)]
        skipped: ::core::primitive::bool,
        #[cacheable(with = "text", alias = "words")]
        text: ::std::string::String,
    }

    mod text {
        pub(super) fn encode(text: &::std::string::String) -> &[::core::primitive::u8] {
            text.as_bytes()
        }

        pub(super) fn decode(
            text: &[::core::primitive::u8],
        ) -> ::core::result::Result<::std::string::String, ::std::string::FromUtf8Error> {
            ::std::string::String::from_utf8(::std::borrow::ToOwned::to_owned(text))
        }
    }
}

/// A deprecated type, where its use is allowed.
mod outdated {
    use cache_aside::Cacheable;

    #[derive(Cacheable)]
    struct Record {
        #[cacheable(id)]
        id: u64,
        #[deprecated = "use `id`"]
        number: u64,
    }

    #[allow(dead_code)]
    #[deprecated = "use `Record`"]
    #[derive(Cacheable)]
    struct OldRecord {
        #[cacheable(id)]
        id: u64,
    }

    #[deprecated = "use `u64`"]
    type Number = u64;

    #[expect(deprecated)]
    #[derive(Cacheable)]
    struct NewRecord {
        #[cacheable(id)]
        id: Number,
    }

    #[test]
    fn can_be_stored() {
        assert_eq!(Record::SCHEMA.fields, ["id", "number"]);
        assert_eq!(NewRecord::SCHEMA.fields, ["id"]);
    }
}

/// A struct that refers to itself.
mod recursive {
    use cache_aside::Cacheable;

    #[derive(Cacheable, serde::Serialize, serde::Deserialize)]
    struct Category {
        #[cacheable(id)]
        id: u64,
        #[cacheable(json)]
        parent: Option<Box<Self>>,
    }

    #[test]
    fn keeps_its_type() {
        let root = Category { id: 1, parent: None };
        drop(Category::FIELDS.parent.set(Some(Box::new(root))));
    }
}

/// Structs that a macro generates.
mod from_a_macro {
    use cache_aside::Cacheable;

    macro_rules! record {
        ($name:ident { $($field:ident: $ty:ty,)* }) => {
            #[derive(Cacheable)]
            struct $name {
                #[cacheable(id)]
                id: u64,
                $($field: $ty,)*
            }
        };
    }

    record!(Product { name: String, stock: Option<u32>, });

    #[test]
    fn has_its_fields() {
        let product = Product { id: 1, name: String::new(), stock: None };
        assert_eq!(product.id(), 1);
        drop([Product::FIELDS.name.set(product.name), Product::FIELDS.stock.set(product.stock)]);
        assert_eq!(Product::SCHEMA.fields, ["id", "name", "stock"]);
    }
}
