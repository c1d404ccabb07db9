//! `rust_decimal::Decimal` as a field: the text of its `Display`, which keeps trailing zeros.

use std::borrow::Cow;

use rust_decimal::Decimal;

use crate::error::BoxError;
use crate::value::{FieldValue, parse};

#[diagnostic::do_not_recommend]
impl FieldValue for Decimal {
    fn encode(&self) -> Option<Vec<u8>> {
        Some(self.to_string().into_bytes())
    }

    fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
        parse(&bytes, "a decimal number")
    }
}
