//! Shared by the near caches over a backend: invalidation messages, and the task that subscribes to them.
//!
//! The task starts with the first near cache, and ends with the backend or when it finds no near cache left.

use std::sync::{Arc, OnceLock};

use super::{Backend, redis};
use crate::background::Background;
use crate::near::Tracking;
use crate::record::Key;

/// Empty until something asks for it: a near cache that is built over the backend, or a simulated outage.
#[derive(Default)]
pub(super) struct NearCaches {
    tracking: OnceLock<Arc<Tracking>>,
    task: Background,
}

impl NearCaches {
    pub(super) fn tracking(&self) -> Option<&Arc<Tracking>> {
        self.tracking.get()
    }

    /// Like [`tracking`](Self::tracking), but creates it. `None` for a store without servers.
    pub(super) fn start_tracking(&self, backend: &Backend) -> Option<&Arc<Tracking>> {
        let inner = &backend.inner;
        let redis = inner.store.redis()?;
        let new = || Arc::new(Tracking::new(&inner.address, redis.changes(), inner.without()));
        Some(self.tracking.get_or_init(new))
    }

    /// Starts the task unless it is running, and wakes it.
    pub(super) fn run_task(&self, backend: &Backend) {
        let (Some(tracking), Some(redis)) = (self.tracking.get(), backend.inner.store.redis()) else {
            return;
        };
        let settings = backend.inner.settings;
        self.task.ensure(|| redis::track(Arc::downgrade(redis), tracking.clone(), settings));
        tracking.wake();
    }

    /// Drops a key from near caches, after this process may have written its entry.
    pub(super) fn written(&self, key: &Key) {
        if let Some(tracking) = self.tracking.get() {
            tracking.written(key);
        }
    }

    /// Drops all keys with this prefix from near caches.
    pub(super) fn all_written(&self, prefix: &str) {
        if let Some(tracking) = self.tracking.get() {
            tracking.registry.flush(prefix);
        }
    }
}
