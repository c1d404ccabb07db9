//! `bytes::Bytes` as a field: the bytes as they are.

use std::borrow::Cow;

use bytes::Bytes;

use crate::error::BoxError;
use crate::value::FieldValue;

#[diagnostic::do_not_recommend]
impl FieldValue for Bytes {
    fn encode(&self) -> Option<Vec<u8>> {
        Some(self.to_vec())
    }

    fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
        Ok(bytes.into_owned().into())
    }
}
