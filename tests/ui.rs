//! The compiler's message for each mistake: the code is in `tests/ui/<mistake>.rs`, the message in the file next to it.
//!
//! `TRYBUILD=overwrite cargo test -p ui` renews the messages. Read the diff before you keep them.

#[cfg(feature = "json")]
#[test]
fn mistakes_are_explained() {
    trybuild::TestCases::new().compile_fail("*.rs");
}

#[cfg(not(feature = "json"))]
#[test]
fn json_asks_for_its_feature() {
    trybuild::TestCases::new().compile_fail("without_json/*.rs");
}
