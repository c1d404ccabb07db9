//! Commands and replies on the wire: RESP2, and RESP3 for trackers. No other file knows either format.
//!
//! The bytes of a reply are slices of the buffer that it was received into, not copies.

use std::mem;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use redis::{ErrorKind, RedisError, RedisResult};
use resp_rs::resp2::{Frame, parse_frame};
use resp_rs::{ParseError, resp3};

use super::errors::{is_wrong_type, unexpected_reply};
use crate::record::{Entry, Hash, Key, META, Selection};

/// The largest reply that is accepted.
const MAX_REPLY_BYTES: usize = 64 * 1024 * 1024;

/// Appends a command.
pub(super) fn encode(out: &mut Vec<u8>, arguments: &[&[u8]]) {
    encode_length(out, b'*', arguments.len());
    for argument in arguments {
        encode_argument(out, argument);
    }
}

/// One command.
pub(super) fn command(arguments: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out, arguments);
    out
}

fn encode_argument(out: &mut Vec<u8>, argument: &[u8]) {
    encode_length(out, b'$', argument.len());
    out.extend_from_slice(argument);
    out.extend_from_slice(b"\r\n");
}

fn encode_length(out: &mut Vec<u8>, kind: u8, length: usize) {
    out.push(kind);
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends the command that reads an entry. [`entry`] takes its reply.
pub(super) fn encode_read(out: &mut Vec<u8>, key: &Key, selection: &Selection) {
    let Some(names) = selection.names() else {
        return encode(out, &[b"HGETALL", key.as_str().as_bytes()]);
    };
    // HMGET, the key, the names, and `~meta`.
    encode_length(out, b'*', names.len() + 3);
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

/// A reply that is no error.
#[derive(Debug)]
pub(super) struct Reply(Frame);

impl Reply {
    pub(super) fn is_ok(&self) -> bool {
        matches!(&self.0, Frame::SimpleString(text) if **text == *b"OK")
    }

    pub(super) fn is_nil(&self) -> bool {
        matches!(&self.0, Frame::BulkString(None) | Frame::Array(None))
    }

    pub(super) fn integer(&self) -> RedisResult<i64> {
        match self.0 {
            Frame::Integer(number) => Ok(number),
            _ => Err(unexpected_reply()),
        }
    }

    /// A string; `None` for nil.
    pub(super) fn bytes(self) -> RedisResult<Option<Bytes>> {
        match self.0 {
            Frame::BulkString(bytes) => Ok(bytes),
            Frame::SimpleString(bytes) => Ok(Some(bytes)),
            _ => Err(unexpected_reply()),
        }
    }

    /// A string that is text.
    pub(super) fn text(self) -> RedisResult<String> {
        let bytes = self.bytes()?.ok_or_else(unexpected_reply)?;
        String::from_utf8(bytes.into()).map_err(|_| unexpected_reply())
    }

    /// The elements of an array, each a reply or an error.
    pub(super) fn array(self) -> RedisResult<Vec<RedisResult<Self>>> {
        match self.0 {
            Frame::Array(Some(elements)) => Ok(elements.into_iter().map(checked).collect()),
            _ => Err(unexpected_reply()),
        }
    }

    /// Whether this is a server's own reply to ROLE. Envoy's, for example, is a list of such replies.
    pub(super) fn is_role(&self) -> bool {
        self.role().is_some()
    }

    /// Whether this is a replica's reply to ROLE.
    pub(super) fn is_role_of_replica(&self) -> bool {
        self.role().is_some_and(|role| **role == *b"slave")
    }

    fn role(&self) -> Option<&Bytes> {
        let Frame::Array(Some(elements)) = &self.0 else { return None };
        match elements.first() {
            Some(Frame::BulkString(Some(role)) | Frame::SimpleString(role)) => Some(role),
            _ => None,
        }
    }

    /// The lifetime that PTTL reports; `None` for a key that does not exist or has none.
    pub(super) fn remaining(&self) -> Option<Duration> {
        match self.0 {
            Frame::Integer(millis) => u64::try_from(millis).ok().map(Duration::from_millis),
            _ => None,
        }
    }
}

#[cfg(test)]
impl Reply {
    pub(super) fn parse(text: &str) -> Self {
        let (frame, _rest) = parse_frame(Bytes::copy_from_slice(text.as_bytes())).unwrap();
        checked(frame).unwrap()
    }
}

/// The entry in the reply to a read. A key of another type is an unreadable entry.
pub(super) fn entry(reply: RedisResult<Reply>, selection: &Selection) -> RedisResult<Option<Entry>> {
    let elements = match reply {
        Ok(Reply(Frame::Array(Some(elements)))) => elements,
        Ok(_) => return Err(unexpected_reply()),
        Err(error) if is_wrong_type(&error) => return Ok(Some(Entry::WrongType)),
        Err(error) => return Err(error),
    };
    let hash = match selection.names() {
        Some(names) if elements.len() == names.len() + 1 => selected(elements)?,
        Some(_) => return Err(unexpected_reply()),
        None => whole(elements)?,
    };
    Ok(hash.map(Entry::Hash))
}

fn selected(elements: Vec<Frame>) -> RedisResult<Option<Hash>> {
    let value = |element| match element {
        Frame::BulkString(value) => Ok(value),
        _ => Err(unexpected_reply()),
    };
    Ok(Hash::selected(elements.into_iter().map(value).collect::<RedisResult<_>>()?))
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
    Ok(Hash::whole(fields))
}

fn checked(frame: Frame) -> RedisResult<Reply> {
    match frame {
        Frame::Error(text) => Err(server_error(&text)),
        frame => Ok(Reply(frame)),
    }
}

/// Converts a reply from RESP3. Keeps only the types that a tracker reads: strings, arrays and errors.
fn in_resp2(frame: resp3::Frame) -> Frame {
    match frame {
        resp3::Frame::SimpleString(text) => Frame::SimpleString(text),
        resp3::Frame::Error(text) | resp3::Frame::BlobError(text) => Frame::Error(text),
        resp3::Frame::BulkString(bytes) => Frame::BulkString(bytes),
        resp3::Frame::Array(Some(elements)) => Frame::Array(Some(elements.into_iter().map(in_resp2).collect())),
        _ => Frame::Array(None),
    }
}

/// A server's error as the driver's type, which parses its kind and where it redirects to.
fn server_error(text: &[u8]) -> RedisError {
    let line = [b"-", text, b"\r\n"].concat();
    match redis::parse_redis_value(&line) {
        Ok(redis::Value::ServerError(error)) => error.into(),
        Ok(_) => unexpected_reply(),
        Err(error) => error,
    }
}

/// Bytes received from a socket, split into replies.
#[derive(Debug)]
pub(super) struct Received {
    /// Size of a new buffer. It is replaced when less than a quarter is left.
    at_once: usize,
    /// The first bytes of a reply that is not whole yet.
    partial: BytesMut,
    /// The search for the end of that reply.
    scan: Option<Scan>,
    /// Whether a reply that was too large has just been thrown away, for which its caller gets an error.
    has_thrown_away: bool,
    /// Whole replies, and perhaps the beginning of one more.
    unread: Bytes,
}

impl Received {
    pub(super) fn new(at_once: usize) -> Self {
        Self { at_once, partial: BytesMut::new(), scan: None, has_thrown_away: false, unread: Bytes::new() }
    }

    /// The buffer to receive into, once all whole replies have been taken.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        if self.partial.capacity() - self.partial.len() < self.at_once / 4 {
            self.partial.reserve(self.at_once);
        }
        &mut self.partial
    }

    /// Looks at the bytes that [`buffer`](Self::buffer) has received since the last call.
    pub(super) fn examine(&mut self) {
        // A reply that comes in many pieces is parsed only once it is whole. If it is too large, it is thrown away.
        if let Some(scan) = &mut self.scan {
            let is_whole = scan.finds_end(&self.partial);
            scan.is_too_large |= scan.at > MAX_REPLY_BYTES;
            if scan.is_too_large {
                let scanned = scan.at.min(self.partial.len());
                self.partial.advance(scanned);
                scan.at -= scanned;
            }
            if !is_whole {
                return;
            }
            self.has_thrown_away = scan.is_too_large;
        }
        self.scan = None;
        self.unread = self.partial.split().freeze();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unread.is_empty() && !self.has_thrown_away
    }

    /// The next reply, if it is whole.
    ///
    /// # Errors
    ///
    /// When what was received is no reply of a Redis server. A server's own error is the inner result.
    pub(super) fn next(&mut self) -> RedisResult<Option<RedisResult<Reply>>> {
        Ok(self.frame(parse_frame)?.map(|frame| frame.and_then(checked)))
    }

    /// Like [`next`](Self::next), in RESP3. Before it returns the reply, `changed` is called with the key of each invalidation
    /// message that came earlier; `None` stands for all keys.
    pub(super) fn next_in_resp3(
        &mut self,
        mut changed: impl FnMut(Option<&[u8]>),
    ) -> RedisResult<Option<RedisResult<Reply>>> {
        while let Some(frame) = self.frame(resp3::parse_frame)? {
            // A lost invalidation message can't be recovered: end the session.
            match frame? {
                resp3::Frame::Push(message) => match &message[..] {
                    [kind, ..] if kind.as_str() != Some("invalidate") => {}
                    [_, resp3::Frame::Array(Some(keys)), ..] => {
                        keys.iter().filter_map(resp3::Frame::as_bytes).for_each(|key| changed(Some(key)));
                    }
                    _ => changed(None),
                },
                reply => return Ok(Some(checked(in_resp2(reply)))),
            }
        }
        Ok(None)
    }

    fn frame<F>(
        &mut self,
        parse: impl FnOnce(Bytes) -> Result<(F, Bytes), ParseError>,
    ) -> RedisResult<Option<RedisResult<F>>> {
        if mem::take(&mut self.has_thrown_away) {
            return Ok(Some(Err((ErrorKind::Client, "the reply has more than 64 MiB").into())));
        }
        if self.unread.is_empty() {
            return Ok(None);
        }
        match parse(self.unread.clone()) {
            Ok((frame, rest)) => {
                self.unread = rest;
                Ok(Some(Ok(frame)))
            }
            Err(ParseError::Incomplete) => {
                let rest = mem::take(&mut self.unread);
                // Drop our own empty handle on the buffer first: then `rest` may be the only one, and needs no copy.
                drop(mem::take(&mut self.partial));
                self.partial = rest.try_into_mut().unwrap_or_else(|shared| {
                    let mut copy = BytesMut::with_capacity(shared.len() + self.at_once);
                    copy.extend_from_slice(&shared);
                    copy
                });
                self.scan = Some(Scan { at: 0, missing: 1, is_too_large: false });
                Ok(None)
            }
            Err(error) => Err((ErrorKind::Parse, "the reply can't be understood", error.to_string()).into()),
        }
    }
}

/// Searches for the end of a reply that comes in pieces, and looks at each byte once.
#[derive(Debug)]
struct Scan {
    /// May lie beyond what was received.
    at: usize,
    /// How many values are missing until the end. An array adds its elements.
    missing: u64,
    is_too_large: bool,
}

impl Scan {
    /// Whether the reply is whole. Malformed bytes count as its end, and the parser then says what is wrong.
    fn finds_end(&mut self, bytes: &[u8]) -> bool {
        const LONGEST_LINE: usize = 64 * 1024;
        const LONGEST_STRING: usize = 512 * 1024 * 1024;
        while self.missing > 0 {
            let Some(rest) = bytes.get(self.at..) else { return false };
            let Some(line) = rest.iter().position(|byte| *byte == b'\r').filter(|end| end + 1 < rest.len()) else {
                return rest.len() > LONGEST_LINE;
            };
            let number = || std::str::from_utf8(&rest[1..line]).ok()?.parse::<i64>().ok();
            let mut end = self.at + line + 2;
            match rest.first() {
                Some(b'$') => match number().map(usize::try_from) {
                    Some(Ok(length)) if length <= LONGEST_STRING => end += length + 2,
                    Some(Err(_nil)) => {}
                    _ => return true,
                },
                Some(b'*' | b'>') => match number() {
                    Some(elements) => self.missing = self.missing.saturating_add(u64::try_from(elements).unwrap_or(0)),
                    None => return true,
                },
                _ => {}
            }
            self.at = end;
            self.missing -= 1;
        }
        self.at <= bytes.len()
    }
}
