//! A stored entry: its hash, which of its fields a read asks for, and what it means: a live or stale record, a not-found
//! entry, or something unreadable.
//!
//! Owns the one reserved field, `~meta`. Later releases may add to it, so an entry whose `~meta` this release doesn't
//! understand is unreadable, which makes it a miss.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;

use super::{FieldError, Record, Schema, Shape};
use crate::error::BoxError;

/// The name of the library's own field.
pub(crate) const META: &[u8] = b"~meta";
const ABSENT: &[u8] = b"absent";

/// One field of a stored hash: its name and its value.
pub(crate) type StoredField = (Cow<'static, [u8]>, Vec<u8>);

/// One field of a hash that was read: its name and its value.
pub(crate) type FoundField = (Bytes, Bytes);

/// A stored hash, as it was read. Its bytes are slices of the reply, or shared with the embedded backend.
#[derive(Debug)]
pub(crate) enum Hash {
    /// All fields, with their names.
    Whole(Arc<Vec<FoundField>>),
    /// Without names: the values of the selected fields, in the order of the selection, and `~meta`.
    Selected { values: Vec<Option<Bytes>>, meta: Option<Bytes> },
}

impl Hash {
    /// `None` if there are no fields.
    pub(crate) fn whole(fields: Vec<FoundField>) -> Option<Self> {
        (!fields.is_empty()).then(|| Self::Whole(Arc::new(fields)))
    }

    /// The last value is `~meta`. `None` if no field exists.
    pub(crate) fn selected(mut values: Vec<Option<Bytes>>) -> Option<Self> {
        let meta = values.pop()?;
        let is_there = meta.is_some() || values.iter().any(Option::is_some);
        is_there.then_some(Self::Selected { values, meta })
    }
}

/// The new values of fields, by name. `None` removes a field from the hash.
pub(crate) type Changes = Vec<(&'static str, Option<Vec<u8>>)>;

/// The value that a backend found at an entry's key.
#[derive(Debug)]
pub(crate) enum Entry {
    Hash(Hash),
    /// A value of another Redis type, which another client has put there.
    WrongType,
}

/// An entry, and how long it will exist.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) entry: Entry,
    /// The key's own PTTL, which includes the stale tail. `None`: it never expires, or its PTTL was not asked for.
    pub(crate) left: Option<Duration>,
}

/// The meaning of an entry to a reader of `V`: of whole records, or of some of their fields.
pub(crate) enum Reading<V> {
    Record(V),
    /// A record, and how long it is past its TTL.
    Stale(V, Duration),
    NotFound,
    Unreadable(BoxError),
}

impl Entry {
    /// The notes beside the fields. Empty if they aren't understood.
    pub(crate) fn meta(&self) -> Meta {
        match self {
            Self::Hash(hash) => meta_text(hash).and_then(Meta::parse).unwrap_or_default(),
            Self::WrongType => Meta::default(),
        }
    }
}

impl Found {
    /// Reads a whole record.
    pub(crate) fn read(&self, shape: &Shape) -> Reading<Record> {
        self.read_by(|hash| shape.decode(hash))
    }

    /// Like `read`, with another decoder.
    pub(crate) fn read_by<V>(&self, decode: impl FnOnce(&Hash) -> Result<V, FieldError>) -> Reading<V> {
        let Entry::Hash(hash) = &self.entry else {
            return Reading::Unreadable("it is not a hash".into());
        };
        let meta = match meta_text(hash) {
            None => Some(Meta::default()),
            Some(ABSENT) if has_no_field(hash) => return Reading::NotFound,
            Some(text) => Meta::parse(text),
        };
        let Some(meta) = meta else {
            return Reading::Unreadable("its `~meta` is of another release".into());
        };
        match (decode(hash), meta.age(self.left)) {
            (Ok(record), None) => Reading::Record(record),
            (Ok(record), Some(age)) => Reading::Stale(record, age),
            (Err(mistake), _) => Reading::Unreadable(mistake.into()),
        }
    }

    /// The entry's remaining TTL, without the stale tail. Zero if it is stale.
    pub(crate) fn ttl(&self) -> Option<Duration> {
        let left = self.left?;
        Some(left.saturating_sub(self.entry.meta().stale.unwrap_or_default()))
    }
}

/// The most fields that are read by their names: with more of them, the names cost more than they save.
const MOST_SELECTED: usize = 12;

/// The fields that a read asks for: some by name, or all. Stores may return more, but never less.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    /// Without `~meta`, which is always read too. Empty for all fields.
    names: Cow<'static, [&'static str]>,
    /// The names as the store sends them: encoded once, since every hit sends them again.
    encoded: OnceLock<Vec<u8>>,
}

pub(crate) static ALL: Selection = Selection::new(Cow::Borrowed(&[]));

impl Selection {
    const fn new(names: Cow<'static, [&'static str]>) -> Self {
        Self { names, encoded: OnceLock::new() }
    }

    /// The fields of a struct.
    pub(crate) fn of(schema: &Schema) -> Self {
        // A field with aliases may be stored under any of its names.
        Self::by_name(Cow::Borrowed(if schema.aliases.is_empty() { schema.fields } else { &[] }))
    }

    /// These fields, and one of the id: every record has that, so a record without any of the fields is still seen.
    pub(crate) fn with_id(mut names: Vec<&'static str>, schema: &Schema) -> Self {
        match schema.ids.first() {
            Some(id) => names.push(id),
            // A record without an id is seen by all of its fields.
            None => names.clear(),
        }
        Self::by_name(Cow::Owned(names))
    }

    fn by_name(names: Cow<'static, [&'static str]>) -> Self {
        Self::new(if names.len() > MOST_SELECTED { Cow::Borrowed(&[]) } else { names })
    }

    /// Whether the entry exists but has none of these fields.
    pub(crate) fn overlooks(&self, entry: &Entry) -> bool {
        let (Some(names), Entry::Hash(Hash::Whole(fields))) = (self.names(), entry) else {
            return false;
        };
        let is_seen = |name: &[u8]| *name == *META || names.iter().any(|seen| *seen.as_bytes() == *name);
        !fields.iter().any(|(name, _)| is_seen(name))
    }

    /// The names as `encode` writes them, which is called only once.
    pub(crate) fn encoded(&self, encode: impl FnOnce(&[&'static str]) -> Vec<u8>) -> &[u8] {
        self.encoded.get_or_init(|| encode(&self.names))
    }

    /// `None` for all fields.
    pub(crate) fn names(&self) -> Option<&[&'static str]> {
        Some(&*self.names).filter(|names| !names.is_empty())
    }
}

/// The notes in `~meta` of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Meta {
    /// The stale tail: how long the entry is kept past its TTL.
    pub(crate) stale: Option<Duration>,
    /// How long its load took.
    pub(crate) load: Option<Duration>,
}

impl Meta {
    /// Parses `name=milliseconds`, separated by spaces. `None` for an unknown name too, which may change the entry's meaning.
    fn parse(text: &[u8]) -> Option<Self> {
        let mut meta = Self::default();
        for note in std::str::from_utf8(text).ok()?.split(' ') {
            let (name, millis) = note.split_once('=')?;
            let slot = match name {
                "stale" => &mut meta.stale,
                "load" => &mut meta.load,
                _ => return None,
            };
            let is_number = millis.bytes().all(|byte| byte.is_ascii_digit());
            let duration = Duration::from_millis(millis.parse().ok().filter(|_| is_number)?);
            if slot.replace(duration).is_some() {
                return None;
            }
        }
        Some(meta)
    }

    /// The hash field, if there is something to note.
    pub(crate) fn field(self) -> Option<StoredField> {
        Some((Cow::Borrowed(META), self.text()?.into_bytes()))
    }

    /// The value of the hash field, if there is something to note.
    pub(crate) fn text(self) -> Option<String> {
        let notes = [("stale", self.stale), ("load", self.load)].into_iter();
        let notes = notes.filter_map(|(name, duration)| Some(format!("{name}={}", duration?.as_millis())));
        Some(notes.collect::<Vec<_>>().join(" ")).filter(|text| !text.is_empty())
    }

    /// How long an entry with this PTTL is past its TTL. `None` if it is live.
    fn age(self, left: Option<Duration>) -> Option<Duration> {
        self.stale?.checked_sub(left?)
    }
}

fn meta_text(hash: &Hash) -> Option<&[u8]> {
    match hash {
        Hash::Selected { meta, .. } => meta.as_deref(),
        Hash::Whole(fields) => fields.iter().find(|(name, _)| **name == *META).map(|(_, text)| &**text),
    }
}

/// Whether there is no field but `~meta`.
fn has_no_field(hash: &Hash) -> bool {
    match hash {
        Hash::Selected { values, .. } => values.iter().all(Option::is_none),
        Hash::Whole(fields) => fields.len() == 1,
    }
}

/// The not-found entry: the primary has no such record.
pub(crate) fn not_found() -> Vec<StoredField> {
    vec![(Cow::Borrowed(META), ABSENT.to_vec())]
}

/// The hash of a record's fields.
pub(crate) fn stored(fields: Changes) -> Vec<StoredField> {
    fields.into_iter().filter_map(|(name, value)| Some((Cow::Borrowed(name.as_bytes()), value?))).collect()
}

/// The fields of a hash, with their names. `selected` are the names of a hash that was read by name.
pub(crate) fn named(hash: &Hash, selected: &[&'static str]) -> Vec<FoundField> {
    match hash {
        Hash::Whole(fields) => fields.to_vec(),
        Hash::Selected { values, meta } => {
            let values = selected.iter().zip(values);
            let fields = values.filter_map(|(name, value)| Some((Bytes::from_static(name.as_bytes()), value.clone()?)));
            fields.chain(meta.clone().map(|text| (Bytes::from_static(META), text))).collect()
        }
    }
}

/// A hash with changes applied.
pub(crate) fn changed(mut fields: Vec<FoundField>, changes: Changes) -> Vec<FoundField> {
    for (name, value) in changes {
        fields.retain(|(present, _)| **present != *name.as_bytes());
        fields.extend(value.map(|value| (Bytes::from_static(name.as_bytes()), value.into())));
    }
    fields
}

/// A hash with these notes in place of its own.
pub(crate) fn with_meta(mut fields: Vec<FoundField>, meta: Meta) -> Vec<FoundField> {
    fields.retain(|(name, _)| **name != *META);
    fields.extend(meta.text().map(|text| (Bytes::from_static(META), text.into())));
    fields
}

/// The size of a hash for `max_entry_bytes`: its names and its values.
pub(crate) fn size(fields: &[(impl AsRef<[u8]>, impl AsRef<[u8]>)]) -> usize {
    fields.iter().map(|(name, value)| name.as_ref().len() + value.as_ref().len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Option<Duration> {
        Some(Duration::from_millis(millis))
    }

    #[test]
    fn meta_comes_back_from_its_text_and_is_left_out_when_there_is_nothing_to_note() {
        for (meta, text) in [
            (Meta { stale: millis(300_000), load: millis(12) }, "stale=300000 load=12"),
            (Meta { stale: millis(1), load: None }, "stale=1"),
            (Meta { stale: None, load: millis(1) }, "load=1"),
        ] {
            assert_eq!(meta.field(), Some((META.into(), text.as_bytes().to_vec())));
            assert_eq!(Meta::parse(text.as_bytes()), Some(meta));
        }
        assert_eq!(Meta::default().field(), None);
        assert_eq!(Meta::parse(b"load=12 stale=3"), Some(Meta { stale: millis(3), load: millis(12) }));
    }

    #[test]
    fn meta_of_another_release_is_not_understood() {
        for text in [
            "",
            "absent",
            "stale",
            "stale=",
            "stale=-1",
            "stale=+1",
            "stale=1 ",
            " stale=1",
            "stale=1  load=1",
            "stale=1 stale=1",
            "stale=1,load=1",
            "stale=1 more=1",
            "Stale=1",
            "stale=1s",
            "stale=18446744073709551616",
        ] {
            assert_eq!(Meta::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(Meta::parse(b"stale=\xFF"), None);
    }

    #[test]
    fn an_entry_is_stale_from_the_moment_when_only_its_tail_is_left() {
        let meta = Meta { stale: millis(100), load: None };
        assert_eq!(meta.age(millis(101)), None);
        assert_eq!(meta.age(millis(100)), millis(0));
        assert_eq!(meta.age(millis(30)), millis(70));
        assert_eq!(meta.age(None), None, "it has no end");
        assert_eq!(Meta::default().age(millis(1)), None);
    }
}
