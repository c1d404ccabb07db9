//! The part of a cache that its clones and flights share: [`Core`], which doesn't know the type of its records.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::policy::Policy;
use crate::backend::Backend;
use crate::defaults;
use crate::error::Error;
use crate::metrics::{CacheMetrics, NearMetrics};
use crate::near::Near;
use crate::read::{Flights, Orphans, Refreshes};
use crate::record::{InvalidId, Key, KeySpace, Meta, Record, Selection, Shape, StoredField, entry};
use crate::stats::Stats;

pub(crate) struct Core {
    pub(crate) shape: &'static Shape,
    pub(crate) backend: Backend,
    pub(crate) policy: Policy,
    pub(crate) metrics: CacheMetrics,
    pub(crate) near: Option<Arc<Near>>,
    pub(crate) keys: KeySpace,
    /// The fields of a whole record.
    pub(crate) selection: Selection,
    /// The flights that load through the cache.
    pub(crate) flights: Arc<Flights>,
    /// The flights that load around the cache.
    pub(crate) bypasses: Arc<Flights>,
    pub(crate) refreshes: Refreshes,
    pub(crate) orphans: Orphans,
    /// Permits for loads around the cache.
    pub(crate) bypass_loads: Semaphore,
}

impl Core {
    pub(super) fn new(shape: &'static Shape, backend: Backend, namespace: Option<&str>, policy: Policy) -> Self {
        let keys = KeySpace::new(namespace, &shape.schema);
        let (namespace, entity) = (namespace.unwrap_or_default(), shape.schema.entity);
        let near = policy.near_cache.filter(|_| policy.enabled).and_then(|settings| {
            let tracking = backend.tracking()?;
            let (largest, metrics) = (policy.max_entry_bytes, NearMetrics::new(namespace, entity));
            let near = Near::new(settings, keys.prefix(), largest, tracking, metrics);
            backend.track();
            Some(near)
        });
        Self {
            shape,
            near,
            keys,
            metrics: CacheMetrics::new(namespace, entity),
            selection: Selection::of(&shape.schema),
            flights: Arc::default(),
            bypasses: Arc::default(),
            refreshes: Refreshes::default(),
            orphans: Orphans::default(),
            bypass_loads: Semaphore::new(policy.max_bypass_loads),
            backend,
            policy,
        }
    }

    /// The entry to store for the result of a loader that ran for `took`, and the entry's lifetime. `None` if nothing is to be
    /// stored.
    pub(crate) fn entry(
        &self,
        key: &Key,
        record: Option<&Record>,
        took: Duration,
    ) -> Option<(Vec<StoredField>, Duration)> {
        let Some(record) = record else {
            return Some((entry::not_found(), self.policy.not_found_lifetime()?));
        };
        let is_asked_for = |id: &str| (id == key.id()).then_some(());
        if KeySpace::with_id(&mut |out| (self.shape.write_id)(record, out), is_asked_for).is_none() {
            self.report_other_id();
            return None;
        }
        let ttl = self.policy.lifetime(record)?;
        let mut fields = match self.shape.fields_of(record) {
            Ok(fields) => entry::stored(fields),
            Err(mistake) => {
                self.metrics.counts.encode_errors.add();
                let (keys, cause) = (key.prefix(), std::error::Error::source(&mistake).map(ToString::to_string));
                self.backend.repeats().warn(format!("encode {keys} {mistake}"), |times| {
                    tracing::warn!(keys, %mistake, cause, times, "a record could not be encoded and is not cached");
                });
                return None;
            }
        };
        let load = self.policy.refresh_ahead.map(|_| took.max(defaults::SHORTEST));
        let meta = Meta { stale: self.policy.stale_if_error, load };
        fields.extend(meta.field());
        self.fits(key, entry::size(&fields)).then_some((fields, ttl + meta.stale.unwrap_or_default()))
    }

    /// A record's id as written in a key, even if it is invalid. `None` if it can't be written.
    pub(crate) fn id_text(&self, record: &Record) -> Option<Box<str>> {
        KeySpace::id_text(&mut |out| (self.shape.write_id)(record, out))
    }

    /// A loader has returned a record with an id that it was not asked for.
    pub(crate) fn report_other_id(&self) {
        self.metrics.counts.other_ids.add();
        let keys = self.keys.prefix();
        self.backend.repeats().warn(format!("other id {keys}"), |times| {
            let advice = "return each record with the id that was asked for: mind case, spaces and number formats";
            tracing::warn!(keys, times, advice, "a loader returned a record with another id: it is not cached");
        });
    }

    /// The key of an id. `None` if it can't be part of a key: such a record is never cached.
    pub(crate) fn valid(&self, key: Result<Key, InvalidId>) -> Result<Option<Key>, Error> {
        key.map(Some).or_else(|invalid| self.report_invalid_id(invalid).map(|_key| None))
    }

    /// Counts and logs an invalid id. Returns the key that it would have, for use in this process only.
    pub(crate) fn report_invalid_id(&self, invalid: InvalidId) -> Result<(Key, Error), Error> {
        let InvalidId { key, error } = invalid;
        let Some(key) = key else { return Err(*error) };
        self.metrics.counts.invalid_ids.add();
        let keys = self.keys.prefix();
        self.backend.repeats().warn(format!("invalid id {keys}"), |times| {
            let cause = &*error;
            tracing::warn!(keys, %cause, times, "an id can't be part of a key: its record is never cached");
        });
        Ok((key, *error))
    }

    /// Whether an entry of this size may be stored.
    pub(crate) fn fits(&self, key: &Key, bytes: usize) -> bool {
        let fits = bytes <= self.policy.max_entry_bytes;
        if !fits {
            let (keys, max_entry_bytes) = (key.prefix(), self.policy.max_entry_bytes);
            self.backend.repeats().warn(format!("too large {keys}"), |times| {
                tracing::warn!(keys, bytes, max_entry_bytes, times, "a record is too large and is not cached");
            });
        }
        fits
    }

    pub(super) fn stats(&self) -> Stats {
        let mut stats = self.metrics.counts.snapshot();
        if let Some(near) = &self.near {
            near.metrics.add_to(&mut stats);
            stats.tracker = near.tracker();
        }
        stats
    }

    pub(super) fn reset_stats(&self) {
        self.metrics.counts.reset();
        if let Some(near) = &self.near {
            near.metrics.reset();
        }
    }
}
