//! `chrono`'s points in time and dates as fields, in RFC 3339 text.

use std::borrow::Cow;

use chrono::{DateTime, FixedOffset, NaiveDate, SecondsFormat, Utc};

use crate::error::BoxError;
use crate::value::{FieldValue, parse, unexpected};

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
        Some(self.to_rfc3339_opts(SecondsFormat::AutoSi, true).into_bytes())
    }

    fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
        let time = std::str::from_utf8(&bytes).ok().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
        time.ok_or_else(|| unexpected("a time such as 2026-01-31T12:00:00Z", &bytes))
    }
}

#[diagnostic::do_not_recommend]
impl FieldValue for NaiveDate {
    fn encode(&self) -> Option<Vec<u8>> {
        Some(self.to_string().into_bytes())
    }

    fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
        parse(&bytes, "a date such as 2026-01-31")
    }
}
