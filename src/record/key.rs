//! The grammar of the Redis keys of an id's entry and lease. No other file knows it.
//!
//! Keeps two promises. Different ids never share a key, nor do different types or key prefixes: an id writes its plain text, and
//! here the bytes that structure a key, and `%` itself, are escaped. No id leaves its prefix or chooses its cluster slot: an
//! escaped id has no `:`, `/` or brace, so the hash tag of the lease's key is always the whole key of the entry.
//!
//! | | without a key prefix | with `team-a:` |
//! |---|---|---|
//! | entry | `cache:billing:product:1` | `team-a:cache:billing:product:1` |
//! | lease | `{cache:billing:product:1}:lock` | `team-a:lock:{team-a:cache:billing:product:1}` |

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
pub(crate) struct Key {
    lease: Arc<str>,
    /// Where the entry's key begins.
    entry_start: usize,
}

impl Key {
    pub(crate) fn as_str(&self) -> &str {
        &self.lease[self.entry_start..self.lease.len() - after_entry(self.entry_start).len()]
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
        let key_prefix = TypeNames::of(prefix).key_prefix;
        let names = prefix[key_prefix.len() + CACHE.len() + 1..].trim_end_matches(':');
        let before = before_entry(key_prefix);
        let lease = format!("{before}{key_prefix}{CACHE}:~swept:{run_id}:{names}{}", after_entry(before.len()));
        Self { entry_start: before.len(), lease: lease.into() }
    }

    /// The key of the entry's lease, in the same slot.
    pub(crate) fn lock(&self) -> &str {
        &self.lease
    }
}

/// What is before the entry's key in its lease's key. With a key prefix, the lease's key begins with it too, so that one pattern
/// in the server's ACL covers both keys.
fn before_entry(key_prefix: &str) -> String {
    if key_prefix.is_empty() { "{".to_owned() } else { format!("{key_prefix}lock:{{") }
}

/// What is after it, by the length of what is before it: one byte if there is no key prefix.
fn after_entry(entry_start: usize) -> &'static str {
    if entry_start == 1 { "}:lock" } else { "}" }
}

/// Refuses a key prefix that would make keys ambiguous, or that a pattern would read as more than its text.
pub(crate) fn check_key_prefix(key_prefix: &str) -> Result<(), Error> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'-');
    if key_prefix.is_empty() || !key_prefix.bytes().all(is_allowed) {
        return Err(Error::config(format!(
            "the key prefix {key_prefix:?} must be one or more of a-z, A-Z, 0-9, `_`, `.`, `:` and `-`"
        )));
    }
    // `team-a:cache:cache:product:1` would be a product under `team-a:cache:`, and one of the namespace `cache` under `team-a:`.
    if key_prefix.rsplit_once(':').is_some_and(|(before, _)| before.ends_with(CACHE)) {
        return Err(Error::config(format!(
            "the key prefix {key_prefix:?} has `cache` before its last `:`, where keys have it too: add a part, as in \
             \"{key_prefix}app:\""
        )));
    }
    Ok(())
}

/// What follows the key prefix in each entry's key.
const CACHE: &str = "cache";

/// The parts of the prefix that all keys of a type have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TypeNames<'a> {
    pub(crate) key_prefix: &'a str,
    /// Empty if there is none.
    pub(crate) namespace: &'a str,
    /// With the version, if there is one.
    pub(crate) entity: &'a str,
}

impl<'a> TypeNames<'a> {
    /// Takes the prefix apart. It has one reading, since [`check_key_prefix`] lets no key prefix end in `cache:` and a namespace.
    pub(crate) fn of(prefix: &'a str) -> Self {
        let names = prefix.strip_suffix(':').unwrap_or(prefix);
        let (rest, entity) = names.rsplit_once(':').unwrap_or(("", names));
        if let Some((before, namespace)) = rest.rsplit_once(':')
            && let Some(key_prefix) = before.strip_suffix(CACHE)
        {
            return Self { key_prefix, namespace, entity };
        }
        Self { key_prefix: rest.strip_suffix(CACHE).unwrap_or(rest), namespace: "", entity }
    }
}

/// The keys of all entries of a type, or of all their leases: an id between two texts.
#[derive(Debug)]
pub(crate) struct KeysOfType {
    before: String,
    after: &'static str,
}

impl KeysOfType {
    /// The entries whose keys are this prefix and an id.
    pub(crate) fn entries(prefix: &str) -> Self {
        Self { before: prefix.to_owned(), after: "" }
    }

    /// The leases of these entries.
    pub(crate) fn leases(prefix: &str) -> Self {
        let before = before_entry(TypeNames::of(prefix).key_prefix);
        let after = after_entry(before.len());
        Self { before: before + prefix, after }
    }

    /// The pattern for `SCAN`, which finds these keys and may find others. What is around an id has no character with a meaning
    /// in patterns.
    pub(crate) fn pattern(&self) -> String {
        let Self { before, after } = self;
        format!("{before}*{after}")
    }

    /// Whether this is one of the keys. An id has no `:`, but the keys of a namespace may begin with the prefix of the entity of
    /// the same name.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        let id = key.strip_prefix(self.before.as_bytes()).and_then(|key| key.strip_suffix(self.after.as_bytes()));
        id.is_some_and(|id| !id.contains(&b':'))
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
    before_entry: String,
    /// The prefixes of the other versions, which are invalidated too.
    other_versions: Vec<String>,
}

impl KeySpace {
    /// The prefixes of this version and of the other versions.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.prefix).chain(&self.other_versions).map(String::as_str)
    }

    /// `key_prefix`: the backend's, or empty.
    pub(crate) fn new(key_prefix: &str, namespace: Option<&str>, schema: &Schema) -> Self {
        let namespace = namespace.map(|namespace| format!("{namespace}:")).unwrap_or_default();
        let prefix = |version: Option<u32>| {
            let version = version.map(|version| format!("@{version}")).unwrap_or_default();
            format!("{key_prefix}{CACHE}:{namespace}{}{version}:", schema.entity)
        };
        let other_versions = schema.also_invalidates.iter().copied().map(prefix).collect();
        Self { prefix: prefix(schema.version), before_entry: before_entry(key_prefix), other_versions }
    }

    /// The keys of the same id in the other versions.
    pub(crate) fn in_other_versions(&self, key: &Key) -> impl Iterator<Item = Key> {
        let id = key.as_str().strip_prefix(&self.prefix).expect("the key was made here");
        self.other_versions
            .iter()
            .map(move |prefix| self.key_of(&[&self.before_entry, prefix, id, self.after_entry()].concat()))
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
        let mut draft = IdWriter::begin([&self.before_entry, &self.prefix]);
        let written = draft.write_id(write_id);
        let error = written.err().map(|mistake| Error::invalid_id(&draft.key[self.before_entry.len()..], mistake));
        draft.key.push_str(self.after_entry());
        let key = || self.key_of(&draft.key);
        match error {
            None => Ok(key()),
            Some(error) => Err(InvalidId { key: draft.is_whole.then(key), error: Box::new(error) }),
        }
    }

    fn after_entry(&self) -> &'static str {
        after_entry(self.before_entry.len())
    }

    fn key_of(&self, lease: &str) -> Key {
        Key { lease: lease.into(), entry_start: self.before_entry.len() }
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
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_key_prefix_comes_before_both_keys() {
        let schema = Schema { version: Some(3), also_invalidates: &[None], ..Schema::new("product") };
        let keys = KeySpace::new("team-a:", Some("billing"), &schema);
        let key = keys.key::<u64>(&42).unwrap();
        assert_eq!((key.prefix(), key.id()), ("team-a:cache:billing:product@3:", "42"));
        assert_eq!(key.lock(), "team-a:lock:{team-a:cache:billing:product@3:42}");
        let others: Vec<_> = keys.in_other_versions(&key).map(|key| key.lock().to_owned()).collect();
        assert_eq!(others, ["team-a:lock:{team-a:cache:billing:product:42}"]);
    }

    #[test]
    fn the_prefix_of_a_type_has_one_reading() {
        let key_prefixes = ["", "a:", "a:b:", "a", "cache", "a.cache", "lock:", "my-cache:app:", "a:cache"];
        let names = ["", "cache", "xcache", "cache-", "lock", "billing"];
        let mut seen = HashSet::new();
        for key_prefix in key_prefixes {
            assert!(key_prefix.is_empty() || check_key_prefix(key_prefix).is_ok(), "{key_prefix}");
            for namespace in names {
                for entity in &names[1..] {
                    let named = Some(namespace).filter(|namespace| !namespace.is_empty());
                    let keys = KeySpace::new(key_prefix, named, &Schema::new(entity));
                    assert_eq!(TypeNames::of(keys.prefix()), TypeNames { key_prefix, namespace, entity });
                    assert!(seen.insert(keys.prefix().to_owned()), "{}", keys.prefix());
                }
            }
        }
        // Each of these would be an exception, beside the namespace that follows the colon.
        for key_prefix in ["cache:", "a:cache:", "my-cache:", "cache:x", "a:cache:x-"] {
            let error = check_key_prefix(key_prefix).unwrap_err().to_string();
            assert!(error.contains("before its last `:`"), "{error}");
            check_key_prefix(&format!("{key_prefix}app:")).unwrap();
        }
        for key_prefix in ["", "a b:", "a*", "{a}:", "a/b:", "ä:", "a\0", "a%3A"] {
            assert!(check_key_prefix(key_prefix).is_err(), "{key_prefix}");
        }
    }

    #[test]
    fn the_keys_of_a_type_are_its_own() {
        let of = |key_prefix, namespace, entity| KeySpace::new(key_prefix, namespace, &Schema::new(entity));
        let spaces = [
            of("", None, "billing"),
            of("", Some("billing"), "thing"),
            of("", Some("cache"), "billing"),
            of("a:", None, "billing"),
            of("a:", Some("billing"), "thing"),
            of("a:cache:billing:x:", None, "billing"),
            of("lock:", None, "billing"),
        ];
        let keys: Vec<_> = spaces.iter().map(|space| space.key::<String>(&"a:b").unwrap()).collect();
        for space in &spaces {
            let (entries, leases) = (KeysOfType::entries(space.prefix()), KeysOfType::leases(space.prefix()));
            for key in &keys {
                let is_own = key.prefix() == space.prefix();
                assert_eq!(entries.contains(key.as_str().as_bytes()), is_own, "{key} in {entries:?}");
                assert_eq!(leases.contains(key.lock().as_bytes()), is_own, "{} in {leases:?}", key.lock());
                assert!(!entries.contains(key.lock().as_bytes()) && !leases.contains(key.as_str().as_bytes()), "{key}");
            }
        }
        assert_eq!(KeysOfType::leases("a:cache:billing:thing:").pattern(), "a:lock:{a:cache:billing:thing:*}");
        assert_eq!(KeysOfType::leases("cache:billing:thing:").pattern(), "{cache:billing:thing:*}:lock");
    }

    #[test]
    fn an_id_has_the_same_text_in_the_keys_of_every_version() {
        let schema = Schema { version: Some(3), also_invalidates: &[Some(2), None], ..Schema::new("product") };
        let keys = KeySpace::new("", Some("billing"), &schema);
        let key = keys.key::<(String, u64)>(&("a:b", 42)).unwrap();
        assert_eq!(key.as_str(), "cache:billing:product@3:a%3Ab/42");
        assert_eq!((key.prefix(), key.id()), ("cache:billing:product@3:", "a%3Ab/42"));
        let others: Vec<_> = keys.in_other_versions(&key).map(|key| key.to_string()).collect();
        assert_eq!(others, ["cache:billing:product@2:a%3Ab/42", "cache:billing:product:a%3Ab/42"]);
    }
}
