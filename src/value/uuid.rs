//! `uuid::Uuid` as a field and as an id: hyphenated, lower case.

use std::borrow::Cow;
use std::fmt;

use uuid::Uuid;

use crate::error::BoxError;
use crate::id::CacheId;
use crate::value::{FieldValue, parse};

#[diagnostic::do_not_recommend]
impl FieldValue for Uuid {
    fn encode(&self) -> Option<Vec<u8>> {
        Some(self.hyphenated().to_string().into_bytes())
    }

    fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
        parse(&bytes, "a UUID")
    }
}

#[diagnostic::do_not_recommend]
impl CacheId for Uuid {
    fn write_id(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "{}", self.hyphenated())
    }
}
