//! The records whose load has failed, and whose stale entry is served: until when they are not loaded again. The failure mark
//! says the same to all processes; this process need not ask for it with each get.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use tokio::time::Instant;

use crate::record::Key;

/// With fewer pauses, none is removed before its record is read again.
const FIRST_PURGE: usize = 1024;

pub(crate) struct Pauses {
    until: DashMap<Key, Instant>,
    /// With so many, those that are over are removed.
    purge_at: AtomicUsize,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { until: DashMap::new(), purge_at: AtomicUsize::new(FIRST_PURGE) }
    }
}

impl Pauses {
    pub(super) fn begin(&self, key: &Key, pause: Duration) {
        if self.until.len() >= self.purge_at.load(Ordering::Relaxed) {
            self.until.retain(|_, until| *until > Instant::now());
            self.purge_at.store(FIRST_PURGE.max(self.until.len() * 2), Ordering::Relaxed);
        }
        self.until.insert(key.clone(), Instant::now() + pause);
    }

    /// Whether the record is not to be loaded yet.
    pub(super) fn has(&self, key: &Key) -> bool {
        let Some(until) = self.until.get(key).map(|until| *until) else { return false };
        let is_paused = until > Instant::now();
        if !is_paused {
            self.until.remove_if(key, |_, since| *since == until);
        }
        is_paused
    }

    /// A write ends the pause.
    pub(crate) fn end(&self, key: &Key) {
        self.until.remove(key);
    }
}
