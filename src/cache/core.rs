//! The part of a cache that its clones and flights share: [`Core`], which doesn't know the type of its records.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::policy::{Lifetime, Policy};
use crate::backend::Backend;
use crate::defaults;
use crate::error::{BoxError, Error};
use crate::metrics::{CacheMetrics, NearMetrics};
use crate::near::Near;
use crate::read::{Flights, Loaded, LoaderAnswer, Orphans, Pauses, Refreshes};
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
    /// The flights of `refresh`, which load over an entry that is there.
    pub(crate) refreshing: Arc<Flights>,
    pub(crate) refreshes: Refreshes,
    pub(crate) orphans: Orphans,
    pub(crate) pauses: Pauses,
    /// Permits for loads around the cache.
    pub(crate) bypass_loads: Semaphore,
    is_enabled: AtomicBool,
}

/// A loaded record, and what is to be stored of it.
pub(crate) struct Outgoing {
    pub(crate) record: Option<Record>,
    pub(crate) store: ToStore,
}

pub(crate) enum ToStore {
    Entry {
        fields: Vec<StoredField>,
        lifetime: Lifetime,
    },
    /// The entry that was found under the lease lives on, with these notes if they are others.
    SameEntry {
        meta: Option<Meta>,
        lifetime: Lifetime,
    },
    Nothing,
}

impl ToStore {
    /// How long the entry will live, without the stale tail.
    pub(crate) fn ttl(&self) -> Option<Duration> {
        match self {
            Self::Entry { lifetime, .. } | Self::SameEntry { lifetime, .. } => Some(lifetime.ttl),
            Self::Nothing => None,
        }
    }
}

impl Core {
    pub(super) fn new(
        shape: &'static Shape,
        backend: Backend,
        namespace: Option<&str>,
        policy: Policy,
        is_enabled: bool,
    ) -> Self {
        let keys = KeySpace::new(backend.key_prefix(), namespace, &shape.schema);
        backend.add_types(keys.prefixes());
        let (namespace, entity) = (namespace.unwrap_or_default(), shape.schema.entity);
        let near = policy.near_cache.and_then(|settings| {
            let tracking = backend.tracking()?;
            let (largest, metrics) = (policy.max_entry_bytes, NearMetrics::new(namespace, entity));
            let near = Near::new(settings, keys.prefix(), largest, tracking, metrics);
            if is_enabled {
                backend.track();
            }
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
            refreshing: Arc::default(),
            refreshes: Refreshes::default(),
            orphans: Orphans::default(),
            pauses: Pauses::default(),
            bypass_loads: Semaphore::new(policy.max_bypass_loads),
            is_enabled: AtomicBool::new(is_enabled),
            backend,
            policy,
        }
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.is_enabled.load(Ordering::Relaxed)
    }

    pub(super) fn set_enabled(&self, enabled: bool) {
        self.is_enabled.store(enabled, Ordering::Relaxed);
    }

    /// The result of a load that took so long. `granted`: the record that was found under its lease, and the notes in its entry.
    pub(crate) fn outgoing(
        &self,
        key: &Key,
        loaded: &Loaded,
        granted: Option<(Record, Meta)>,
        took: Duration,
    ) -> Result<Outgoing, BoxError> {
        let record = loaded.record(granted.as_ref().map(|(record, _)| record))?;
        let store = self.to_store(key, loaded, record.as_ref(), granted.map(|(_, meta)| meta), took);
        Ok(Outgoing { record, store: store.unwrap_or(ToStore::Nothing) })
    }

    fn to_store(
        &self,
        key: &Key,
        loaded: &Loaded,
        record: Option<&Record>,
        granted: Option<Meta>,
        took: Duration,
    ) -> Option<ToStore> {
        let Loaded { answer, terms } = loaded;
        if terms.no_store {
            return None;
        }
        let Some(record) = record else {
            let lifetime = Lifetime { ttl: self.policy.ttl_of_not_found(terms.ttl)?, meta: Meta::default() };
            return Some(ToStore::Entry { fields: entry::not_found(), lifetime });
        };
        let is_asked_for = |id: &str| (id == key.id()).then_some(());
        if KeySpace::with_id(&mut |out| (self.shape.write_id)(record, out), is_asked_for).is_none() {
            self.report_other_id();
            return None;
        }
        let ttl = self.policy.ttl_of(record, terms.ttl)?;
        let stale = self.policy.stale_tail_by(terms.stale_for);
        let load = self.policy.refresh_ahead.map(|_| took.max(defaults::SHORTEST));
        if let (LoaderAnswer::Unchanged, Some(granted)) = (answer, granted) {
            let meta = Meta { stale, load: load.and(granted.load).or(load) };
            let lifetime = Lifetime { ttl, meta };
            return Some(ToStore::SameEntry { meta: (meta != granted).then_some(meta), lifetime });
        }
        let lifetime = Lifetime { ttl, meta: Meta { stale, load } };
        Some(ToStore::Entry { fields: self.fields(key, record, lifetime.meta)?, lifetime })
    }

    /// The fields of an entry. `None` if the record can't be stored.
    pub(crate) fn fields(&self, key: &Key, record: &Record, meta: Meta) -> Option<Vec<StoredField>> {
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
        fields.extend(meta.field());
        self.fits(key, entry::size(&fields)).then_some(fields)
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
