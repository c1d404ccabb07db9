//! `chrono`'s points in time as fields, in RFC 3339 text, and a date with a time in ISO 8601.

use std::borrow::Cow;

use chrono::{DateTime, FixedOffset, NaiveDateTime, SecondsFormat, Utc};

use super::{FieldValue, parse};
use crate::error::BoxError;

#[diagnostic::do_not_recommend]
impl FieldValue for DateTime<Utc> {
    fn encode(&self) -> Option<Vec<u8>> {
        Some(self.to_rfc3339_opts(SecondsFormat::AutoSi, true).into_bytes())
    }

    fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
        DateTime::<FixedOffset>::decode(bytes).map(|time| time.to_utc())
    }
}

#[diagnostic::do_not_recommend]
impl FieldValue for DateTime<FixedOffset> {
    fn encode(&self) -> Option<Vec<u8>> {
        // RFC 3339 has offsets of whole minutes, and `chrono` panics on a local time beyond its first or last year. In both
        // cases the point in time is kept, and the offset isn't.
        let is_whole = self.offset().local_minus_utc() % 60 == 0;
        if !is_whole || self.naive_utc().checked_add_offset(*self.offset()).is_none() {
            return self.to_utc().encode();
        }
        Some(self.to_rfc3339_opts(SecondsFormat::AutoSi, true).into_bytes())
    }

    fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
        parse(&bytes, "a time such as 2026-01-31T12:00:00Z")
    }
}

#[diagnostic::do_not_recommend]
impl FieldValue for NaiveDateTime {
    fn encode(&self) -> Option<Vec<u8>> {
        // `Display` writes a space in place of the `T`, which its own parser refuses.
        Some(format!("{self:?}").into_bytes())
    }

    fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
        parse(&bytes, "a date and time such as 2026-01-31T12:00:00")
    }
}
