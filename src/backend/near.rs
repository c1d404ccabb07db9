//! A backend's part in near caches: the invalidation messages that they share, and the task that subscribes to these.
//!
//! The task begins with the backend's first near cache. It ends with the backend, or when it finds no near cache left.

use std::sync::{Arc, OnceLock};

use super::{Backend, redis};
use crate::background::Background;
use crate::near::Tracking;
use crate::record::Key;

/// Empty until a near cache is built over the backend.
#[derive(Default)]
pub(super) struct NearCaches {
    tracking: OnceLock<Arc<Tracking>>,
    task: Background,
}

impl NearCaches {
    pub(super) fn tracking(&self) -> Option<&Arc<Tracking>> {
        self.tracking.get()
    }

    /// Like [`tracking`](Self::tracking), for the first near cache too. `None` for a store without servers.
    pub(super) fn start_tracking(&self, backend: &Backend) -> Option<&Arc<Tracking>> {
        let inner = &backend.inner;
        let redis = inner.store.redis()?;
        let new = || Arc::new(Tracking::new(&inner.address, redis.changes(), inner.without()));
        Some(self.tracking.get_or_init(new))
    }

    /// Starts the task, unless it runs, and wakes it.
    pub(super) fn run_task(&self, backend: &Backend) {
        let (Some(tracking), Some(redis)) = (self.tracking.get(), backend.inner.store.redis()) else {
            return;
        };
        let settings = backend.inner.settings;
        self.task.ensure(|| redis::track(Arc::downgrade(redis), tracking.clone(), settings));
        tracking.wake();
    }

    /// Drops what near caches keep of a key, after this process may have written it.
    pub(super) fn written(&self, key: &Key) {
        if let Some(tracking) = self.tracking.get() {
            tracking.written(key);
        }
    }

    /// Drops what near caches keep of all keys with this prefix.
    pub(super) fn all_written(&self, prefix: &str) {
        if let Some(tracking) = self.tracking.get() {
            tracking.flush_prefix(prefix);
        }
    }
}
