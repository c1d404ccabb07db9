//! What is stored for a record, and which invalidations are pending. Nothing here loads.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Cache, Core};
use crate::backend::EntryAndLease;
use crate::error::Error;
use crate::record::{CacheKey, Cacheable, Entry, Found, InvalidId, Key, Reading, Record, entry, typed};

impl<T: Cacheable> Cache<T> {
    /// Reads the cache only, and never loads. `Ok(None)` if there is no entry, or if the entry is a not-found entry,
    /// unreadable, stale, or one whose invalidation is [pending](Self::pending). It counts neither as a hit nor as a miss,
    /// and doesn't start a refresh.
    ///
    /// Redis: like a hit of [`get`](Self::get).
    ///
    /// # Errors
    ///
    /// [`Error::Backend`] or [`Error::Timeout`] if the cache is out of reach.
    #[doc(alias("get_if_present", "exists"))]
    pub fn peek(&self, id: impl CacheKey<T::Id>) -> BoxFuture<'static, Result<Option<Arc<T>>, Error>> {
        Arc::clone(&self.core).peek(self.key(id)).map(|peeked| Ok(peeked?.map(typed))).boxed()
    }

    /// Returns the entry's remaining TTL, also of a not-found entry. `None` if there is no entry, or a stale one.
    ///
    /// Redis: as [`inspect`](Self::inspect).
    ///
    /// # Errors
    ///
    /// As [`peek`](Self::peek).
    pub fn ttl(&self, id: impl CacheKey<T::Id>) -> BoxFuture<'static, Result<Option<Duration>, Error>> {
        Arc::clone(&self.core).ttl(self.key(id))
    }

    /// Shows what is stored for a record, for debugging.
    ///
    /// Redis: two `PTTL` and `HGETALL`, one round trip.
    ///
    /// # Errors
    ///
    /// As [`peek`](Self::peek).
    pub fn inspect(&self, id: impl CacheKey<T::Id>) -> BoxFuture<'static, Result<Inspection, Error>> {
        Arc::clone(&self.core).inspect(self.key(id))
    }

    /// Lists the records of this struct that are read around the cache because an invalidation or update of them failed, or is made
    /// again since another server has taken over. Each is retried in the background, as an invalidation, until it is applied. Only this process knows of them, and
    /// they are lost when it ends: [`Backend::close`](crate::Backend::close) waits for them.
    pub fn pending(&self) -> Pending {
        let mut pending = Pending::default();
        for prefix in self.core.keys.prefixes() {
            let (keys, whole_type) = self.core.backend.pending(prefix);
            pending.keys.extend(keys);
            pending.whole_type |= whole_type;
        }
        pending
    }
}

impl Core {
    fn peek(self: Arc<Self>, key: Result<Key, InvalidId>) -> BoxFuture<'static, Result<Option<Record>, Error>> {
        async move {
            let Some(key) = self.valid(key)? else { return Ok(None) };
            if !self.is_enabled() || self.backend.is_pending(&key) {
                return Ok(None);
            }
            let found = self.read_entry(&key, &self.selection, false).await?;
            let Some(reading) = found.map(|found| found.read(self.shape)) else { return Ok(None) };
            self.report_unreadable(&key, &reading);
            Ok(match reading {
                Reading::Record(record) => Some(record),
                Reading::Stale(..) | Reading::NotFound | Reading::Unreadable(_) => None,
            })
        }
        .boxed()
    }

    fn ttl(self: Arc<Self>, key: Result<Key, InvalidId>) -> BoxFuture<'static, Result<Option<Duration>, Error>> {
        async move {
            let Some(key) = self.valid(key)? else { return Ok(None) };
            Ok(live_ttl(self.backend.look(&key).await?.found.as_ref()))
        }
        .boxed()
    }

    fn inspect(self: Arc<Self>, key: Result<Key, InvalidId>) -> BoxFuture<'static, Result<Inspection, Error>> {
        async move {
            let key = key?;
            let EntryAndLease { found, lease_ttl: lock_ttl } = self.backend.look(&key).await?;
            let ttl = live_ttl(found.as_ref());
            let stale_ttl = found.as_ref().and_then(|found| found.entry.meta().stale.min(found.left));
            let fields = match found.as_ref().map(|found| &found.entry) {
                Some(Entry::Hash(hash)) => entry::named(hash, &[]),
                Some(Entry::WrongType) | None => Vec::new(),
            };
            let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
            let fields = fields.iter().map(|(name, value)| (text(name), value.to_vec())).collect();
            let state = match found.map(|found| found.read(self.shape)) {
                None => EntryState::Missing,
                Some(Reading::Record(_)) => EntryState::Record,
                Some(Reading::Stale(..)) => EntryState::Stale,
                Some(Reading::NotFound) => EntryState::NotFound,
                Some(Reading::Unreadable(_)) => EntryState::Unreadable,
            };
            Ok(Inspection { key: key.to_string(), state, fields, ttl, stale_ttl, lock_ttl })
        }
        .boxed()
    }
}

/// The remaining TTL of an entry that is not stale.
fn live_ttl(found: Option<&Found>) -> Option<Duration> {
    found?.ttl().filter(|ttl| !ttl.is_zero())
}

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

/// The records of one struct whose `invalidate` or update failed, or is made again because another server has taken over, as
/// [`Cache::pending`](crate::Cache::pending) lists them.
///
/// Their invalidation is retried in the background. Until it is applied, this process reads these records around the cache,
/// in all caches over the same [`Backend`](crate::Backend). Other processes don't know of them, and they are lost when this
/// process ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Pending {
    /// The entries' keys, in no particular order.
    pub keys: Vec<String>,
    /// Whether all records of the struct are read around the cache, because there were more failures than
    /// [`max_pending_invalidations`](crate::BackendBuilder::max_pending_invalidations), or because
    /// [`clear`](crate::Cache::clear) failed without being forbidden, or because a server has started again, perhaps with old data.
    pub whole_type: bool,
}

impl Pending {
    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && !self.whole_type
    }
}
