//! The near caches over a backend, by the prefix of their keys. Passes invalidations on to those that they concern.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::RwLock;

use super::Near;
use super::epochs::Epochs;

#[derive(Default)]
pub(crate) struct Registry {
    pub(crate) epochs: Epochs,
    /// By the prefix of their keys.
    caches: RwLock<HashMap<String, Vec<Weak<Near>>>>,
}

impl Registry {
    /// Adds a near cache. If it is the first with this prefix, calls `first` before anyone sees it.
    pub(super) fn add(&self, prefix: &str, near: Weak<Near>, first: impl FnOnce()) {
        let mut caches = self.caches.write();
        let of_prefix = caches.entry(prefix.to_owned()).or_default();
        of_prefix.retain(|near| near.strong_count() > 0);
        of_prefix.push(near);
        if of_prefix.len() == 1 {
            first();
        }
    }

    /// The prefixes to subscribe to: each key of a near cache begins with exactly one of them.
    pub(super) fn prefixes(&self) -> Vec<String> {
        let mut caches = self.caches.write();
        caches.retain(|_, of_prefix| of_prefix.iter().any(|near| near.strong_count() > 0));
        let mut prefixes: Vec<_> = caches.keys().cloned().collect();
        prefixes.sort_unstable();
        // Sorted, a prefix comes right before those that begin with it. Redis refuses prefixes that overlap.
        prefixes.dedup_by(|longer, shorter| longer.starts_with(&**shorter));
        prefixes
    }

    /// Whether the keys of all near caches begin with one of `prefixes`. If so, calls `then` before another can be added.
    pub(super) fn is_covered_by(&self, prefixes: &[String], then: impl FnOnce()) -> bool {
        let caches = self.caches.read();
        let is_covered = caches.keys().all(|key| prefixes.iter().any(|prefix| key.starts_with(prefix)));
        if is_covered {
            then();
        }
        is_covered
    }

    /// Handles a message from the server that a key has changed.
    pub(crate) fn invalidated(&self, key: &[u8]) {
        if let Ok(key) = std::str::from_utf8(key) {
            self.invalidate(key, true);
        }
    }

    pub(super) fn invalidate(&self, key: &str, by_message: bool) {
        // First: in the other order, an old record could be kept again between the two.
        self.epochs.advance(key);
        let (prefix, id) = key.split_at(key.rfind(':').map_or(0, |end| end + 1));
        if let Some(of_prefix) = self.caches.read().get(prefix) {
            present(of_prefix).for_each(|near| near.invalidate(id, by_message));
        }
    }

    /// Drops all records whose keys begin with `prefix`: with an empty one, all records.
    pub(crate) fn flush(&self, prefix: &str) {
        self.epochs.advance_all();
        for (_, of_prefix) in self.caches.read().iter().filter(|(other, _)| other.starts_with(prefix)) {
            present(of_prefix).for_each(|near| near.flush());
        }
    }
}

fn present(caches: &[Weak<Near>]) -> impl Iterator<Item = Arc<Near>> {
    caches.iter().filter_map(Weak::upgrade)
}
