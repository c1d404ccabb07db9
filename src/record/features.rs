//! The codecs of types of other crates, which the derive picks by a type's name. Without the crate's feature the compiler then
//! names the feature, and not the many other ways to store a type.

use std::fmt;

use super::{CacheId, Codec, FieldValue, IdField, id, native};

macro_rules! features {
    ($($module:ident, $feature:literal: $message:literal, $note:literal;)*) => {$(
        #[doc(hidden)]
        pub mod $module {
            use super::*;

            /// A field that is not part of the id.
            #[cfg_attr(
                not(feature = $feature),
                diagnostic::on_unimplemented(message = $message, label = "a feature is missing", note = $note)
            )]
            pub trait Field: Sized {
                const CODEC: Codec<Self>;
            }

            #[cfg_attr(not(feature = $feature), diagnostic::do_not_recommend)]
            impl<V: FieldValue> Field for V {
                const CODEC: Codec<V> = native("");
            }

            /// An id field.
            #[cfg_attr(
                not(feature = $feature),
                diagnostic::on_unimplemented(message = $message, label = "a feature is missing", note = $note)
            )]
            pub trait Id: Sized {
                const CODEC: Codec<Self>;
            }

            #[cfg_attr(not(feature = $feature), diagnostic::do_not_recommend)]
            impl<V: IdField> Id for V {
                const CODEC: Codec<V> = id("");
            }

            /// What a newtype wraps that is an id.
            #[cfg_attr(
                not(feature = $feature),
                diagnostic::on_unimplemented(message = $message, label = "a feature is missing", note = $note)
            )]
            pub trait Wrapped {
                fn write_id(&self, out: &mut dyn fmt::Write) -> fmt::Result;
            }

            #[cfg_attr(not(feature = $feature), diagnostic::do_not_recommend)]
            impl<V: CacheId> Wrapped for V {
                fn write_id(&self, out: &mut dyn fmt::Write) -> fmt::Result {
                    CacheId::write_id(self, out)
                }
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
