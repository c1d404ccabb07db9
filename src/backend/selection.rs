//! Which fields of an entry a read asks for. Stores may return more, but never less.

use std::borrow::Cow;
use std::sync::OnceLock;

use crate::record::{Entry, Hash, META, Schema};

/// The most fields that are read by their names: with more of them, the names cost more than they save.
const MOST_SELECTED: usize = 12;

/// Field names, or all fields.
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
        names.extend(schema.ids.first());
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
    pub(super) fn encoded(&self, encode: impl FnOnce(&[&'static str]) -> Vec<u8>) -> &[u8] {
        self.encoded.get_or_init(|| encode(&self.names))
    }

    /// `None` for all fields.
    pub(crate) fn names(&self) -> Option<&[&'static str]> {
        Some(&*self.names).filter(|names| !names.is_empty())
    }
}
