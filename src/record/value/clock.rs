//! The standard library's times as fields: a [`Duration`] in decimal seconds, a [`SystemTime`] in RFC 3339 text.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::{Duration, SystemTime};

use super::{FieldValue, unexpected};
use crate::error::BoxError;

#[diagnostic::do_not_recommend]
impl FieldValue for Duration {
    fn encode(&self) -> Option<Vec<u8>> {
        let text = format!("{}.{:09}", self.as_secs(), self.subsec_nanos());
        let text = text.trim_end_matches('0').trim_end_matches('.');
        Some(text.as_bytes().to_vec())
    }

    fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
        decimal_seconds(&bytes).ok_or_else(|| unexpected("decimal seconds such as 1.5", &bytes))
    }
}

fn decimal_seconds(bytes: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    Some(Duration::new(whole.parse().ok()?, nanos))
}

#[diagnostic::do_not_recommend]
impl FieldValue for SystemTime {
    fn encode(&self) -> Option<Vec<u8>> {
        // `humantime` panics on times before 1970, and refuses those after 9999.
        let since = self.duration_since(Self::UNIX_EPOCH).ok()?;
        let format = match since.subsec_nanos() {
            0 => humantime::format_rfc3339_seconds,
            nanos if nanos % 1_000_000 == 0 => humantime::format_rfc3339_millis,
            nanos if nanos % 1_000 == 0 => humantime::format_rfc3339_micros,
            _ => humantime::format_rfc3339_nanos,
        };
        let mut text = String::new();
        write!(text, "{}", format(*self)).ok()?;
        Some(text.into_bytes())
    }

    fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
        let text = std::str::from_utf8(&bytes).ok();
        let time = text.and_then(|text| humantime::parse_rfc3339(text).ok());
        time.ok_or_else(|| unexpected("a time such as 2026-01-31T12:00:00Z", &bytes))
    }
}
