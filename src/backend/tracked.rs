//! What near caches need of a backend: whether the servers tell of changes, and the task that sees to it.
//!
//! The task begins with the backend's first near cache. It ends with the backend, or when it finds no near cache left.

use std::sync::Arc;

use super::{Backend, Store, redis};
use crate::background::Background;
use crate::key::Key;
use crate::near::Tracking;

pub(super) struct Tracked {
    tracking: Arc<Tracking>,
    task: Background,
}

impl Backend {
    /// What is known of changes; nothing where a near cache needs no messages, and is of no use.
    pub(crate) fn tracking(&self) -> Option<&Arc<Tracking>> {
        let Store::Redis(redis) = &self.shared.store else {
            return None;
        };
        let tracked = self.shared.tracked.get_or_init(|| {
            let tracking = Tracking::new(&self.shared.address, redis.changes(), self.shared.without());
            Tracked { tracking: Arc::new(tracking), task: Background::default() }
        });
        Some(&tracked.tracking)
    }

    /// Sees to it that the servers are asked to tell of changes.
    pub(crate) fn track(&self) {
        let (Some(tracked), Store::Redis(redis)) = (self.shared.tracked.get(), &self.shared.store) else {
            return;
        };
        let settings = self.shared.settings;
        tracked.task.ensure(|| redis::track(Arc::downgrade(redis), tracked.tracking.clone(), settings));
        tracked.tracking.wake();
    }

    /// After a write: nothing from before it is kept.
    pub(super) fn written(&self, key: &Key) {
        if let Some(tracked) = self.shared.tracked.get() {
            tracked.tracking.written(key);
        }
    }

    /// The same after all entries with this prefix may have been written.
    pub(super) fn all_written(&self, prefix: &str) {
        if let Some(tracked) = self.shared.tracked.get() {
            tracked.tracking.flush_prefix(prefix);
        }
    }

    /// How often something was told about a key, if anything would be.
    pub(crate) fn told(&self, key: &Key) -> Option<u64> {
        Some(self.shared.tracked.get()?.tracking.generation(key))
    }

    /// Waits until more was told about a key than `before`; for ever if nothing would be.
    pub(crate) async fn told_since(&self, key: &Key, before: Option<u64>) {
        match (self.shared.tracked.get(), before) {
            (Some(tracked), Some(before)) => tracked.tracking.told_since(key, before).await,
            _ => std::future::pending().await,
        }
    }
}
