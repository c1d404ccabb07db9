//! The grammar of the Redis keys of an id's entry and lease.
//!
//! Keeps two promises. Different ids never share a key: an id writes its plain text, and here the bytes that structure a key,
//! and `%` itself, are escaped. No id leaves its prefix or chooses its cluster slot: an escaped id has no `:`, `/` or brace, so
//! the hash tag of the lease's key is always the whole key of the entry.

use std::cell::Cell;
use std::fmt::{self, Write};
use std::mem;
use std::sync::Arc;

use super::{CacheKey, IdParts, Schema};
use crate::error::Error;

/// The most bytes that an escaped id may have.
const MAX_ID_BYTES: usize = 1024;

thread_local! {
    /// The buffer that keys are written to first, so that each key is one allocation of its exact length.
    static DRAFT: Cell<String> = const { Cell::new(String::new()) };
}

/// The key of an entry, within the key of its lease. A miss clones it many times, so clones share the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key(Arc<str>);

/// The text before and after the entry's key in the lease's key.
const TAG: (&str, &str) = ("{", "}:lock");

impl Key {
    pub(crate) fn as_str(&self) -> &str {
        &self.0[TAG.0.len()..self.0.len() - TAG.1.len()]
    }

    /// The prefix of all keys of its type.
    pub(crate) fn prefix(&self) -> &str {
        // An escaped id has no `:`.
        let key = self.as_str();
        key.rfind(':').map_or("", |end| &key[..=end])
    }

    /// The id, as written in the key.
    pub(crate) fn id(&self) -> &str {
        &self.as_str()[self.prefix().len()..]
    }

    /// The key of the note that a type was swept at a server that has started again. It is no entry's key, since an id has no `:`.
    pub(crate) fn of_sweep(prefix: &str, run_id: &str) -> Self {
        let kind = prefix.trim_start_matches("cache:").trim_end_matches(':');
        Self([TAG.0, "cache:~swept:", run_id, ":", kind, TAG.1].concat().into())
    }

    /// The key of the entry's lease, in the same slot.
    pub(crate) fn lock(&self) -> &str {
        &self.0
    }
}

/// What would be the key of an invalid id may have any length: it is shown up to here, in characters.
const SHOWN: usize = 2 * MAX_ID_BYTES;

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.SHOWN$}", self.as_str())
    }
}

/// The keys of one cache: their prefix, which comes before the id.
#[derive(Debug)]
pub(crate) struct KeySpace {
    prefix: String,
    /// The prefixes of the other versions, which are invalidated too.
    other_versions: Vec<String>,
}

impl KeySpace {
    /// The prefixes of this version and of the other versions.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.prefix).chain(&self.other_versions).map(String::as_str)
    }

    pub(crate) fn new(namespace: Option<&str>, schema: &Schema) -> Self {
        let namespace = namespace.map(|namespace| format!("{namespace}:")).unwrap_or_default();
        let prefix = |version: Option<u32>| {
            let version = version.map(|version| format!("@{version}")).unwrap_or_default();
            format!("cache:{namespace}{}{version}:", schema.entity)
        };
        let other_versions = schema.also_invalidates.iter().copied().map(prefix).collect();
        Self { prefix: prefix(schema.version), other_versions }
    }

    /// The keys of the same id in the other versions.
    pub(crate) fn in_other_versions(&self, key: &Key) -> impl Iterator<Item = Key> {
        let id = key.as_str().strip_prefix(&self.prefix).expect("the key was made here");
        self.other_versions.iter().map(move |prefix| Key([TAG.0, prefix, id, TAG.1].concat().into()))
    }

    /// The prefix of this version's keys.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn key<Id>(&self, id: &impl CacheKey<Id>) -> Result<Key, InvalidId> {
        self.key_by(&mut |out| id.write_parts(out))
    }

    /// The key of the id that `write_id` writes.
    pub(crate) fn key_by(&self, write_id: WriteId<'_>) -> Result<Key, InvalidId> {
        let mut draft = IdWriter::begin([TAG.0, &self.prefix]);
        let written = draft.write_id(write_id);
        let error = written.err().map(|mistake| Error::invalid_id(&draft.key[TAG.0.len()..], mistake));
        draft.key.push_str(TAG.1);
        let key = || Key(draft.key.as_str().into());
        match error {
            None => Ok(key()),
            Some(error) => Err(InvalidId { key: draft.is_whole.then(key), error: Box::new(error) }),
        }
    }

    /// Shows an id as written in a key. `None` if it is invalid.
    pub(crate) fn with_id<R>(write_id: WriteId<'_>, show: impl FnOnce(&str) -> Option<R>) -> Option<R> {
        let mut draft = IdWriter::begin([]);
        draft.write_id(write_id).ok()?;
        show(&draft.key)
    }

    /// An id as it would be written in a key, even if it is invalid. `None` if it can't be written.
    pub(crate) fn id_text(write_id: WriteId<'_>) -> Option<Box<str>> {
        let mut draft = IdWriter::begin([]);
        let _is_valid = draft.write_id(write_id);
        draft.is_whole.then(|| draft.key.as_str().into())
    }
}

/// An id that can't be part of a key. Its record is loaded around the cache.
#[derive(Debug)]
pub(crate) struct InvalidId {
    /// The key that it would have, for use in this process only. `None` if the id couldn't be written, so that two may look alike.
    pub(crate) key: Option<Key>,
    /// Boxed, as errors are large.
    pub(crate) error: Box<Error>,
}

impl From<InvalidId> for Error {
    fn from(invalid: InvalidId) -> Self {
        *invalid.error
    }
}

/// Writes an id's parts.
pub(crate) type WriteId<'a> = &'a mut dyn FnMut(&mut dyn IdParts) -> fmt::Result;

/// Appends the parts of an id to a key, escaped and joined by `/`.
struct IdWriter {
    /// The thread's buffer, which is given back at the end.
    key: String,
    id_start: usize,
    part_start: Option<usize>,
    mistake: Option<&'static str>,
    /// Whether the whole id was written.
    is_whole: bool,
}

impl IdWriter {
    fn begin<const N: usize>(begin: [&str; N]) -> Self {
        // The buffer is empty if an id makes a key while it is written, and gone if the thread is ending.
        let mut key = DRAFT.try_with(Cell::take).unwrap_or_default();
        begin.iter().for_each(|text| key.push_str(text));
        Self { id_start: key.len(), part_start: None, key, mistake: None, is_whole: false }
    }

    /// Returns what is wrong with the id.
    fn write_id(&mut self, write_id: WriteId<'_>) -> Result<(), &'static str> {
        self.is_whole = write_id(self).is_ok();
        self.end_part();
        if !self.is_whole {
            return Err("its `write_id` returned an error");
        }
        if self.key.len() - self.id_start > MAX_ID_BYTES {
            return Err("it has more than 1,024 bytes as written in a key");
        }
        self.mistake.map_or(Ok(()), Err)
    }

    fn end_part(&mut self) {
        if self.part_start == Some(self.key.len()) {
            self.mistake = Some("it is empty, or has an empty part");
        }
    }
}

impl IdParts for IdWriter {
    fn next_part(&mut self) -> fmt::Result {
        self.end_part();
        if self.part_start.is_some() {
            self.key.push('/');
        }
        self.part_start = Some(self.key.len());
        Ok(())
    }
}

impl Drop for IdWriter {
    fn drop(&mut self) {
        const KEPT_BYTES: usize = 4 * MAX_ID_BYTES;
        self.key.clear();
        self.key.shrink_to(KEPT_BYTES);
        let _ = DRAFT.try_with(|draft| draft.set(mem::take(&mut self.key)));
    }
}

impl Write for IdWriter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.bytes().position(is_escaped) {
            self.key.push_str(&rest[..at]);
            write!(self.key, "%{:02X}", rest.as_bytes()[at])?;
            rest = &rest[at + 1..];
        }
        self.key.push_str(rest);
        Ok(())
    }
}

fn is_escaped(byte: u8) -> bool {
    byte <= b' ' || matches!(byte, 0x7F | b'%' | b'/' | b':' | b'{' | b'}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_the_same_text_in_the_keys_of_every_version() {
        let schema = Schema { version: Some(3), also_invalidates: &[Some(2), None], ..Schema::new("product") };
        let keys = KeySpace::new(Some("billing"), &schema);
        let key = keys.key::<(String, u64)>(&("a:b", 42)).unwrap();
        assert_eq!(key.as_str(), "cache:billing:product@3:a%3Ab/42");
        assert_eq!((key.prefix(), key.id()), ("cache:billing:product@3:", "a%3Ab/42"));
        let others: Vec<_> = keys.in_other_versions(&key).map(|key| key.to_string()).collect();
        assert_eq!(others, ["cache:billing:product@2:a%3Ab/42", "cache:billing:product:a%3Ab/42"]);
    }
}
