//! What a server answers to a read.
#![no_main]

#[path = "../../tests/properties/replies.rs"]
mod replies;

libfuzzer_sys::fuzz_target!(|input: replies::Input| replies::check(&input));
