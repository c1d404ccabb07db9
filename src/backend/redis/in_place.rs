//! What is asked for over the connection of reads, and what the replies mean.

use std::time::Duration;

use redis::RedisResult;
use resp_rs::resp2::Frame;

use super::errors::unexpected_reply;
use super::reads::{encode, encode_argument, encode_array};
use super::replies::{BESIDE_NAMES, entry_by};
use crate::backend::Selection;
use crate::entry::{Entry, META};
use crate::key::Key;
use crate::record::{Hash, Values};

/// Appends the command whose reply [`entry`] takes.
pub(super) fn encode_read(out: &mut Vec<u8>, key: &Key, selection: &Selection) {
    let Some(names) = selection.names() else {
        return encode(out, &[b"HGETALL", key.as_str().as_bytes()]);
    };
    const COMMAND_AND_KEY: usize = 2;
    encode_array(out, COMMAND_AND_KEY + names.len() + BESIDE_NAMES);
    encode_argument(out, b"HMGET");
    encode_argument(out, key.as_str().as_bytes());
    out.extend_from_slice(selection.encoded(|names| {
        let mut arguments = Vec::new();
        for name in names.iter().map(|name| name.as_bytes()).chain([META]) {
            encode_argument(&mut arguments, name);
        }
        arguments
    }));
}

/// What the reply to that says is there.
pub(super) fn entry(reply: RedisResult<Frame>, selection: &Selection) -> RedisResult<Option<Entry>> {
    entry_by(reply, |reply| match reply {
        Frame::Array(Some(elements)) => match selection.names() {
            Some(names) if elements.len() == names.len() + BESIDE_NAMES => selected(elements),
            Some(_) => Err(unexpected_reply()),
            None => whole(elements),
        },
        _ => Err(unexpected_reply()),
    })
}

fn selected(elements: Vec<Frame>) -> RedisResult<Option<Hash>> {
    let value = |element| match element {
        Frame::BulkString(value) => Ok(value),
        _ => Err(unexpected_reply()),
    };
    let values = elements.into_iter().map(value).collect::<RedisResult<Vec<_>>>()?;
    Ok(Hash::selected(values, Values::Sliced))
}

fn whole(elements: Vec<Frame>) -> RedisResult<Option<Hash>> {
    let mut elements = elements.into_iter();
    let mut fields = Vec::with_capacity(elements.len() / 2);
    while let Some(name) = elements.next() {
        match (name, elements.next()) {
            (Frame::BulkString(Some(name)), Some(Frame::BulkString(Some(value)))) => fields.push((name, value)),
            _ => return Err(unexpected_reply()),
        }
    }
    Ok((!fields.is_empty()).then_some(Hash::Sliced(fields)))
}

/// The lifetime that PTTL reports; `None` for a key that isn't there or has none.
pub(super) fn remaining(pttl: &Frame) -> Option<Duration> {
    match pttl {
        Frame::Integer(millis) => u64::try_from(*millis).ok().map(Duration::from_millis),
        _ => None,
    }
}
