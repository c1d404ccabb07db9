//! The codecs of types of other crates, which the derive picks by a type's name. Without the crate's feature the compiler then
//! names the feature, and not the many other ways to store a type.

macro_rules! features {
    ($($module:ident, $feature:literal: $message:literal, $note:literal;)*) => {$(
        #[doc(hidden)]
        #[cfg(feature = $feature)]
        pub mod $module {
            pub use crate::record::{id, native, write_id};
        }

        #[doc(hidden)]
        #[cfg(not(feature = $feature))]
        pub mod $module {
            use std::fmt;

            use crate::record::{CacheId, Codec, FieldValue};

            #[diagnostic::on_unimplemented(message = $message, label = "a feature is missing", note = $note)]
            pub trait Field: FieldValue {}

            #[diagnostic::do_not_recommend]
            impl<V: FieldValue> Field for V {}

            #[diagnostic::on_unimplemented(message = $message, label = "a feature is missing", note = $note)]
            pub trait Id: FieldValue + CacheId {}

            #[diagnostic::do_not_recommend]
            impl<V: FieldValue + CacheId> Id for V {}

            #[diagnostic::on_unimplemented(message = $message, label = "a feature is missing", note = $note)]
            pub trait Part: CacheId {}

            #[diagnostic::do_not_recommend]
            impl<V: CacheId> Part for V {}

            pub fn write_id<V: Part>(id: &V, out: &mut dyn fmt::Write) -> fmt::Result {
                id.write_id(out)
            }

            pub const fn native<V: Field>(name: &'static str) -> Codec<V> {
                crate::record::native(name)
            }

            pub const fn id<V: Id>(name: &'static str) -> Codec<V> {
                crate::record::id(name)
            }
        }
    )*};
}

features! {
    bigdecimal, "bigdecimal": "`{Self}` needs the feature `bigdecimal` of cache-aside",
        "enable it with `cargo add cache-aside --features bigdecimal`";
    bytes, "bytes": "`{Self}` needs the feature `bytes` of cache-aside",
        "enable it with `cargo add cache-aside --features bytes`";
    chrono, "chrono": "`{Self}` needs the feature `chrono` of cache-aside",
        "enable it with `cargo add cache-aside --features chrono`";
    compact_str, "compact_str": "`{Self}` needs the feature `compact_str` of cache-aside",
        "enable it with `cargo add cache-aside --features compact_str`";
    jiff, "jiff": "`{Self}` needs the feature `jiff` of cache-aside",
        "enable it with `cargo add cache-aside --features jiff`";
    json, "json": "`{Self}` needs the feature `json` of cache-aside",
        "enable it with `cargo add cache-aside --features json`";
    rust_decimal, "rust_decimal": "`{Self}` needs the feature `rust_decimal` of cache-aside",
        "enable it with `cargo add cache-aside --features rust_decimal`";
    smol_str, "smol_str": "`{Self}` needs the feature `smol_str` of cache-aside",
        "enable it with `cargo add cache-aside --features smol_str`";
    time, "time": "`{Self}` needs the feature `time` of cache-aside",
        "enable it with `cargo add cache-aside --features time`";
    ulid, "ulid": "`{Self}` needs the feature `ulid` of cache-aside",
        "enable it with `cargo add cache-aside --features ulid`";
    url, "url": "`{Self}` needs the feature `url` of cache-aside",
        "enable it with `cargo add cache-aside --features url`";
    uuid, "uuid": "`{Self}` needs the feature `uuid` of cache-aside",
        "enable it with `cargo add cache-aside --features uuid`";
}
