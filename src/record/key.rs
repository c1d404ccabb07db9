//! The key grammar: the Redis keys of an id's entry and lease.
//!
//! Keeps two promises. Different ids never share a key: the bytes that structure a key, and `%` itself, are escaped in ids.
//! No id leaves its prefix or chooses its cluster slot: an escaped id has no `:`, `/` or brace, so the hash tag of the lease's
//! key is always the whole key of the entry.

use std::cell::Cell;
use std::fmt::{self, Write};
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

    /// The key of the entry's lease, in the same slot.
    pub(crate) fn lock(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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

    pub(crate) fn key<Id>(&self, id: &impl CacheKey<Id>) -> Result<Key, Error> {
        self.key_by(&mut |out| id.write_parts(out))
    }

    /// The key of the id that `write_id` writes.
    pub(crate) fn key_by(&self, write_id: WriteId<'_>) -> Result<Key, Error> {
        let begin = [TAG.0, &self.prefix];
        draft(begin, write_id, |draft| match draft {
            Ok(key) => {
                key.push_str(TAG.1);
                Ok(Key(key.as_str().into()))
            }
            Err((key, mistake)) => Err(Error::invalid_id(&key[TAG.0.len()..], mistake)),
        })
    }

    /// Shows an id as written in a key. `None` if it is invalid.
    pub(crate) fn with_id<R>(write_id: WriteId<'_>, show: impl FnOnce(&str) -> R) -> Option<R> {
        draft([], write_id, |draft| draft.ok().map(|id| show(id)))
    }
}

/// Writes an id's parts.
pub(crate) type WriteId<'a> = &'a mut dyn FnMut(&mut dyn IdParts) -> fmt::Result;

/// Writes a key with an id at its end, and passes it to `finish`: or the draft so far, and what is wrong with the id.
fn draft<const N: usize, R>(
    begin: [&str; N],
    write_id: WriteId<'_>,
    finish: impl FnOnce(Result<&mut String, (&str, &'static str)>) -> R,
) -> R {
    const KEPT_BYTES: usize = 4 * MAX_ID_BYTES;
    // The buffer is empty if an id makes a key while it is written, and gone if the thread is ending.
    let mut key = DRAFT.try_with(Cell::take).unwrap_or_default();
    for text in begin {
        key.push_str(text);
    }
    let mut writer = IdWriter { id_start: key.len(), part_start: None, key, mistake: None };
    let written = write_id(&mut writer).and_then(|()| writer.end_part());
    let IdWriter { mut key, mistake, .. } = writer;
    let mistake = mistake.or_else(|| written.err().map(|fmt::Error| "its `write_id` returned an error"));
    let finished = match mistake {
        Some(mistake) => finish(Err((&key, mistake))),
        None => finish(Ok(&mut key)),
    };
    key.clear();
    key.shrink_to(KEPT_BYTES);
    let _ = DRAFT.try_with(|draft| draft.set(key));
    finished
}

/// Appends the parts of an id to a key, escaped and joined by `/`.
struct IdWriter {
    key: String,
    id_start: usize,
    part_start: Option<usize>,
    mistake: Option<&'static str>,
}

impl IdWriter {
    fn refuse(&mut self, mistake: &'static str) -> fmt::Result {
        self.mistake = Some(mistake);
        Err(fmt::Error)
    }

    fn fits(&self, more: usize) -> bool {
        self.key.len() - self.id_start + more <= MAX_ID_BYTES
    }

    fn end_part(&mut self) -> fmt::Result {
        if self.part_start == Some(self.key.len()) {
            return self.refuse("it is empty, or has an empty part");
        }
        Ok(())
    }
}

impl IdParts for IdWriter {
    fn next_part(&mut self) -> fmt::Result {
        self.end_part()?;
        if self.part_start.is_some() {
            self.key.push('/');
        }
        self.part_start = Some(self.key.len());
        Ok(())
    }
}

impl Write for IdWriter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.bytes().position(is_escaped)
            && self.fits(at)
        {
            self.key.push_str(&rest[..at]);
            write!(self.key, "%{:02X}", rest.as_bytes()[at])?;
            rest = &rest[at + 1..];
        }
        self.key.push_str(rest);
        if !self.fits(0) {
            return self.refuse("it has more than 1,024 bytes as written in a key");
        }
        Ok(())
    }
}

fn is_escaped(byte: u8) -> bool {
    byte <= b' ' || matches!(byte, 0x7F | b'%' | b'/' | b':' | b'{' | b'}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> KeySpace {
        KeySpace::new(Some("billing"), &Schema::new("product"))
    }

    fn key<Id>(id: &impl CacheKey<Id>) -> String {
        keys().key(id).unwrap().to_string()
    }

    #[test]
    fn follows_the_grammar() {
        assert_eq!(key::<String>(&"p-001"), "cache:billing:product:p-001");
        assert_eq!(key::<u64>(&42), "cache:billing:product:42");
        assert_eq!(key::<(String, u64)>(&("acme", 42)), "cache:billing:product:acme/42");
        assert_eq!(
            key::<String>(&"a:b{c}d/e%f g\n\0\u{7F}"),
            "cache:billing:product:a%3Ab%7Bc%7Dd%2Fe%25f%20g%0A%00%7F"
        );
        assert_eq!(key::<String>(&"Käse"), "cache:billing:product:Käse");
        let unnamed = KeySpace::new(None, &Schema { version: Some(3), ..Schema::new("product") });
        assert_eq!(unnamed.key::<u64>(&1).unwrap().as_str(), "cache:product@3:1");
        assert_eq!(unnamed.key::<String>(&"a:b").unwrap().prefix(), "cache:product@3:");
    }

    #[test]
    fn gives_the_same_id_to_every_version() {
        let schema = Schema { version: Some(3), also_invalidates: &[Some(2), None], ..Schema::new("product") };
        let keys = KeySpace::new(Some("billing"), &schema);
        let key = keys.key::<(String, u64)>(&("a:b", 42)).unwrap();
        assert_eq!(key.as_str(), "cache:billing:product@3:a%3Ab/42");
        let others: Vec<_> = keys.in_other_versions(&key).map(|key| key.to_string()).collect();
        assert_eq!(others, ["cache:billing:product@2:a%3Ab/42", "cache:billing:product:a%3Ab/42"]);
        let plain = self::keys();
        assert_eq!(plain.in_other_versions(&plain.key::<u64>(&1).unwrap()).count(), 0);
    }

    #[test]
    fn puts_the_whole_data_key_into_the_hash_tag_of_the_lock() {
        let key = keys().key::<String>(&"a{b}c").unwrap();
        assert_eq!(key.lock(), "{cache:billing:product:a%7Bb%7Dc}:lock");
    }

    #[test]
    fn refuses_empty_and_overlong_ids() {
        let longest = "x".repeat(MAX_ID_BYTES);
        assert!(keys().key::<String>(&longest.as_str()).is_ok());
        let escaped = ":".repeat(MAX_ID_BYTES / 3 + 1);
        for id in ["", &format!("{longest}x"), &escaped, &"x".repeat(1 << 20)] {
            assert!(matches!(keys().key::<String>(&id), Err(Error::InvalidId { .. })));
        }
        assert!(matches!(keys().key::<(String, u64)>(&("", 1)), Err(Error::InvalidId { .. })));
        assert!(matches!(keys().key::<(u64, String)>(&(1, "")), Err(Error::InvalidId { .. })));
    }
}
