//! The types of `jiff` as fields: RFC 3339 and ISO 8601 text, with the time zone in brackets for a [`Zoned`].

use std::borrow::Cow;

use jiff::civil::{Date, DateTime, Time};
use jiff::{Timestamp, Zoned};

use super::{FieldValue, parse, with_whole_thousandths};
use crate::error::BoxError;

macro_rules! times {
    ($($ty:ty: $expected:literal,)*) => {$(
        #[diagnostic::do_not_recommend]
        impl FieldValue for $ty {
            fn encode(&self) -> Option<Vec<u8>> {
                Some(with_whole_thousandths(self.to_string()).into_bytes())
            }

            fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
                parse(&bytes, $expected)
            }
        }
    )*};
}

times! {
    Timestamp: "a time such as 2026-01-31T12:00:00Z",
    Zoned: "a time such as 2026-01-31T12:00:00+01:00[Europe/Rome]",
    DateTime: "a date and time such as 2026-01-31T12:00:00",
    Date: "a date such as 2026-01-31",
    Time: "a time of day such as 12:00:00",
}
