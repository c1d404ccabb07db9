//! The grammar of ids and keys.
#![no_main]

#[path = "../../tests/properties/keys.rs"]
mod keys;

libfuzzer_sys::fuzz_target!(|input: keys::Input| keys::check(&input));
