//! A short run of the properties that `fuzz/` tries for longer: both make each input from random bytes in the same way.
#![allow(clippy::unwrap_used, missing_docs)]

mod decode;
mod keys;
mod replies;
mod urls;

use arbitrary::{Arbitrary, Unstructured};
use proptest::collection::vec;
use proptest::prelude::*;

fn input<'a, I: Arbitrary<'a>>(bytes: &'a [u8]) -> I {
    I::arbitrary_take_rest(Unstructured::new(bytes)).unwrap()
}

#[test]
fn a_proper_reply_is_a_hit() {
    replies::check(&replies::Input::of_record());
}

proptest! {
    #[test]
    fn any_hash_is_read(bytes in vec(any::<u8>(), 0..4096)) {
        decode::check(input(&bytes));
    }

    #[test]
    fn any_id_has_a_key_of_its_own(bytes in vec(any::<u8>(), 0..1024)) {
        keys::check(&input(&bytes));
    }

    #[test]
    fn any_reply_ends_a_get(bytes in vec(any::<u8>(), 0..512)) {
        replies::check(&input(&bytes));
    }

    #[test]
    fn any_url_is_a_backend_or_an_advice(bytes in vec(any::<u8>(), 0..512)) {
        urls::check(&input(&bytes));
    }
}
