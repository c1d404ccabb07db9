//! Backend URLs.
#![no_main]

#[path = "../../tests/properties/urls.rs"]
mod urls;

libfuzzer_sys::fuzz_target!(|input: urls::Input| urls::check(&input));
