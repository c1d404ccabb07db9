//! The types of the crate `time` as fields: RFC 3339 text, and its parts for those without an offset.

use std::borrow::Cow;

use time::format_description::well_known::Rfc3339;
use time::{Date, OffsetDateTime, PrimitiveDateTime, Time};

use super::{FieldValue, unexpected, with_whole_thousandths};
use crate::error::BoxError;

#[diagnostic::do_not_recommend]
impl FieldValue for OffsetDateTime {
    fn encode(&self) -> Option<Vec<u8>> {
        // RFC 3339 has offsets of whole minutes. Others are refused, so the point in time is kept, and the offset isn't.
        let text = self.format(&Rfc3339).ok().or_else(|| self.checked_to_utc()?.format(&Rfc3339).ok());
        text.map(|text| with_whole_thousandths(text).into_bytes())
    }

    fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
        parse(&bytes, "", "", "a time such as 2026-01-31T12:00:00Z")
    }
}

#[diagnostic::do_not_recommend]
impl FieldValue for PrimitiveDateTime {
    fn encode(&self) -> Option<Vec<u8>> {
        utc_text(*self).map(String::into_bytes)
    }

    fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
        let time = parse(&bytes, "", "Z", "a date and time such as 2026-01-31T12:00:00")?;
        Ok(Self::new(time.date(), time.time()))
    }
}

#[diagnostic::do_not_recommend]
impl FieldValue for Date {
    fn encode(&self) -> Option<Vec<u8>> {
        let text = utc_text(self.midnight())?;
        Some(text.split_once('T')?.0.as_bytes().to_vec())
    }

    fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
        Ok(parse(&bytes, "", "T00:00:00Z", "a date such as 2026-01-31")?.date())
    }
}

#[diagnostic::do_not_recommend]
impl FieldValue for Time {
    fn encode(&self) -> Option<Vec<u8>> {
        let text = utc_text(PrimitiveDateTime::new(Date::MIN.replace_year(1970).ok()?, *self))?;
        Some(text.split_once('T')?.1.as_bytes().to_vec())
    }

    fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
        Ok(parse(&bytes, "1970-01-01T", "Z", "a time of day such as 12:00:00")?.time())
    }
}

/// RFC 3339 text without its offset. `None` for years outside of 0 to 9999.
fn utc_text(time: PrimitiveDateTime) -> Option<String> {
    let mut text = with_whole_thousandths(time.assume_utc().format(&Rfc3339).ok()?);
    text.pop();
    Some(text)
}

/// Parses RFC 3339 text whose missing parts are these.
fn parse(bytes: &[u8], before: &str, after: &str, expected: &str) -> Result<OffsetDateTime, BoxError> {
    let text = std::str::from_utf8(bytes).ok();
    let time = text.and_then(|text| OffsetDateTime::parse(&[before, text, after].concat(), &Rfc3339).ok());
    time.ok_or_else(|| unexpected(expected, bytes))
}
