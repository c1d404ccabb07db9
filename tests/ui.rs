//! What the compiler says to each mistake: `tests/ui/<mistake>.rs`, and beside it the text.
//!
//! `TRYBUILD=overwrite cargo test --test ui` writes the texts anew, to be read before they are kept.

#[cfg(feature = "json")]
#[test]
fn mistakes_are_explained() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}

#[cfg(not(feature = "json"))]
#[test]
fn json_asks_for_its_feature() {
    trybuild::TestCases::new().compile_fail("tests/ui/without_json/*.rs");
}
