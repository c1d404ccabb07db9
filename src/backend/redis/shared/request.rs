//! Commands that a caller wants sent together, and what may become of them when their connection is lost.

use std::time::Duration;

/// How often a request may be sent, if its connection is lost each time.
pub(super) const ATTEMPTS: u32 = 4;

/// Appends one of a request's commands, by its number.
pub(in crate::backend::redis) type Encode<'a> = dyn Fn(usize, &mut Vec<u8>) + Sync + 'a;

#[derive(Clone, Copy)]
pub(in crate::backend::redis) struct Request<'a> {
    pub(in crate::backend::redis) encode: &'a Encode<'a>,
    /// How long the server may take to answer.
    pub(super) limit: Duration,
    /// How often the commands may be sent.
    pub(super) attempts: u32,
    /// Whether the commands go out one right after the other, with none of another request in between.
    pub(super) is_contiguous: bool,
    /// Whether the commands are a write, which depends on their order. So all of them are sent again if one is redirected; and if
    /// the epoch has ended before the replies came, the write counts as lost.
    pub(in crate::backend::redis) is_write: bool,
}

impl<'a> Request<'a> {
    /// Commands that may be carried out twice.
    pub(in crate::backend::redis) fn new(limit: Duration, encode: &'a Encode<'a>) -> Self {
        Self { encode, limit, attempts: ATTEMPTS, is_contiguous: true, is_write: false }
    }

    /// Commands that must not be carried out twice.
    pub(in crate::backend::redis) fn once(limit: Duration, encode: &'a Encode<'a>) -> Self {
        Self { attempts: 1, ..Self::new(limit, encode) }
    }

    /// The unrelated commands of a batch, which needn't go out together.
    pub(in crate::backend::redis) fn batch(limit: Duration, encode: &'a Encode<'a>) -> Self {
        Self { is_contiguous: false, ..Self::once(limit, encode) }
    }

    /// The commands of a write, which may be carried out twice.
    pub(in crate::backend::redis) fn write(limit: Duration, encode: &'a Encode<'a>) -> Self {
        Self { is_write: true, ..Self::new(limit, encode) }
    }

    /// The same request with other commands.
    pub(in crate::backend::redis) fn with(self, encode: &'a Encode<'a>) -> Self {
        Self { encode, ..self }
    }
}
