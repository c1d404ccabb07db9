//! Decoding any hash into a struct.
#![no_main]

#[path = "../../tests/properties/decode.rs"]
mod decode;

libfuzzer_sys::fuzz_target!(|input: decode::Input| decode::check(input));
