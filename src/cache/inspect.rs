//! An entry as it is stored, for debugging: [`Inspection`].

use std::fmt;
use std::time::Duration;

use crate::backend::EntryAndLease;
use crate::record::{Entry, Found, Key, Reading, Shape, entry};

/// The stored entry of one record, as [`Cache::inspect`](crate::Cache::inspect) found it. Its `Display` is a short text
/// with one field per line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// The entry's key.
    pub key: String,
    /// How this struct's caches read the entry.
    pub state: EntryState,
    /// The names and values of the stored fields, undecoded. Empty if there is no hash.
    pub fields: Vec<(String, Vec<u8>)>,
    /// The entry's remaining TTL. `None` if there is no entry, if it never expires, or if it is stale.
    pub ttl: Option<Duration>,
    /// How long the record will be kept past its TTL, to be served if its load fails. Of a stale record, what is left of that
    /// time. `None` if it won't be kept.
    pub stale_ttl: Option<Duration>,
    /// While a load is under way, how long its lease lasts unless it is renewed. After a failed load, how long the load won't
    /// be retried. `None` otherwise.
    pub lock_ttl: Option<Duration>,
}

/// How the caches of a struct read a stored entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EntryState {
    /// Nothing is stored.
    Missing,
    /// A record.
    Record,
    /// A record past its TTL, kept to be served if its load fails. It counts as a miss, and the next load replaces it.
    Stale,
    /// A not-found entry: the primary has no such record.
    NotFound,
    /// Not an entry of this struct. It counts as a miss, and the next load replaces it.
    Unreadable,
}

impl Inspection {
    pub(crate) fn new(shape: &Shape, key: &Key, look: &EntryAndLease) -> Self {
        let ttl = look.found.as_ref().and_then(Found::ttl).filter(|ttl| !ttl.is_zero());
        let stale_ttl = look.found.as_ref().and_then(|found| found.entry.meta().stale.min(found.left));
        let fields = match look.found.as_ref().map(|found| &found.entry) {
            Some(Entry::Hash(hash)) => entry::named(hash, &[]),
            Some(Entry::WrongType) | None => Vec::new(),
        };
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let fields = fields.iter().map(|(name, value)| (text(name), value.to_vec())).collect();
        let state = match look.found.as_ref().map(|found| found.read(shape)) {
            None => EntryState::Missing,
            Some(Reading::Record(_)) => EntryState::Record,
            Some(Reading::Stale(..)) => EntryState::Stale,
            Some(Reading::NotFound) => EntryState::NotFound,
            Some(Reading::Unreadable(_)) => EntryState::Unreadable,
        };
        Self { key: key.to_string(), state, fields, ttl, stale_ttl, lock_ttl: look.lease_ttl }
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            EntryState::Missing => "nothing stored",
            EntryState::Record => "a record",
            EntryState::Stale => "a stale record",
            EntryState::NotFound => "noted as not found",
            EntryState::Unreadable => "unreadable",
        };
        write!(f, "{}: {state}", self.key)?;
        if let Some(ttl) = self.ttl {
            write!(f, ", {:.1} s to live", ttl.as_secs_f64())?;
        }
        if let Some(stale_ttl) = self.stale_ttl {
            write!(f, ", {:.1} s to be kept stale", stale_ttl.as_secs_f64())?;
        }
        if let Some(lock_ttl) = self.lock_ttl {
            write!(f, ", its lease is taken for {:.1} s", lock_ttl.as_secs_f64())?;
        }
        let width = self.fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in &self.fields {
            match std::str::from_utf8(value) {
                Ok(text) if !text.contains(char::is_control) => write!(f, "\n  {name:width$}  {text}")?,
                _ => write!(f, "\n  {name:width$}  {}", value.escape_ascii())?,
            }
        }
        Ok(())
    }
}
