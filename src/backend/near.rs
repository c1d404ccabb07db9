//! Near caches over a backend: the invalidation messages that they share, and the task that subscribes to them.
//!
//! The task starts with the first near cache, and ends with the backend or when it finds no near cache left.

use std::sync::Arc;

use super::{Backend, redis};
use crate::near::Tracking;
use crate::record::Key;

impl Backend {
    /// Shared by all near caches over this backend, and created by the first call. `None` for a store without servers.
    pub(crate) fn tracking(&self) -> Option<&Arc<Tracking>> {
        let inner = &self.inner;
        let redis = inner.store.redis()?;
        let new = || Arc::new(Tracking::new(&inner.address, redis.changes(), inner.outage.clone(), inner.without()));
        Some(inner.tracking.get_or_init(new))
    }

    /// Makes sure that the servers are asked for invalidation messages, and wakes the task that does so.
    pub(crate) fn track(&self) {
        let inner = &self.inner;
        if let (Some(tracking), Some(redis)) = (inner.tracking.get(), inner.store.redis()) {
            inner.tracker.ensure(|| redis::track(Arc::downgrade(redis), tracking.clone(), inner.settings));
            tracking.wake();
        }
    }

    /// The key's epoch, which advances with each change that this process learns of. `None` without near caches.
    pub(crate) fn key_epoch(&self, key: &Key) -> Option<u64> {
        Some(self.inner.tracking.get()?.registry.epochs.current(key))
    }

    /// Waits until the key has changed since `epoch`; for ever without near caches.
    pub(crate) async fn changed_since(&self, key: &Key, epoch: Option<u64>) {
        match (self.inner.tracking.get(), epoch) {
            (Some(tracking), Some(epoch)) => tracking.registry.epochs.changed_since(key, epoch).await,
            _ => std::future::pending().await,
        }
    }

    /// Drops a key from near caches, after this process may have written its entry.
    pub(crate) fn written(&self, key: &Key) {
        if let Some(tracking) = self.inner.tracking.get() {
            tracking.written(key);
        }
    }

    /// Drops all keys with this prefix from near caches.
    pub(super) fn all_written(&self, prefix: &str) {
        if let Some(tracking) = self.inner.tracking.get() {
            tracking.registry.flush(prefix);
        }
    }
}
