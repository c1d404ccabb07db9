//! The near caches over a backend, by the prefix of their keys. Passes invalidations on to those that they concern.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::RwLock;

use super::epochs::Epochs;

/// A near cache, as the registry sees it.
pub(super) trait Listener: Send + Sync {
    /// Drops the record with this id. `by_message`: because of a message from the server, not of a write by this process.
    fn invalidate(&self, id: &str, by_message: bool);
    /// Drops everything.
    fn flush(&self);
}

#[derive(Default)]
pub(crate) struct Registry {
    pub(crate) epochs: Epochs,
    /// By the prefix of their keys.
    listeners: RwLock<HashMap<String, Vec<Weak<dyn Listener>>>>,
}

impl Registry {
    /// Adds a listener. If it is the first with this prefix, calls `first` before anyone sees it.
    pub(super) fn add(&self, prefix: &str, listener: Weak<impl Listener + 'static>, first: impl FnOnce()) {
        let mut listeners = self.listeners.write();
        let of_prefix = listeners.entry(prefix.to_owned()).or_default();
        of_prefix.retain(|listener| listener.strong_count() > 0);
        of_prefix.push(listener);
        if of_prefix.len() == 1 {
            first();
        }
    }

    /// The prefixes to subscribe to: each key of a listener begins with exactly one of them.
    pub(super) fn prefixes(&self) -> Vec<String> {
        let mut listeners = self.listeners.write();
        listeners.retain(|_, of_prefix| of_prefix.iter().any(|listener| listener.strong_count() > 0));
        let mut prefixes: Vec<_> = listeners.keys().cloned().collect();
        prefixes.sort_unstable();
        // Sorted, a prefix comes right before those that begin with it. Redis refuses prefixes that overlap.
        prefixes.dedup_by(|longer, shorter| longer.starts_with(&**shorter));
        prefixes
    }

    /// Whether the keys of all listeners begin with one of `prefixes`. If so, calls `then` before another listener can be added.
    pub(super) fn is_covered_by(&self, prefixes: &[String], then: impl FnOnce()) -> bool {
        let listeners = self.listeners.read();
        let is_covered = listeners.keys().all(|key| prefixes.iter().any(|prefix| key.starts_with(prefix)));
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
        if let Some(of_prefix) = self.listeners.read().get(prefix) {
            upgraded(of_prefix).for_each(|listener| listener.invalidate(id, by_message));
        }
    }

    /// Drops all records whose keys begin with `prefix`: with an empty one, all records.
    pub(crate) fn flush(&self, prefix: &str) {
        self.epochs.advance_all();
        for (_, of_prefix) in self.listeners.read().iter().filter(|(other, _)| other.starts_with(prefix)) {
            upgraded(of_prefix).for_each(|listener| listener.flush());
        }
    }
}

fn upgraded(listeners: &[Weak<dyn Listener>]) -> impl Iterator<Item = Arc<dyn Listener>> {
    listeners.iter().filter_map(Weak::upgrade)
}

#[cfg(test)]
pub(super) mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// Records what it is asked to drop.
    #[derive(Default)]
    pub(in crate::near) struct Dropped {
        pub(in crate::near) ids: Mutex<Vec<String>>,
        pub(in crate::near) flushes: Mutex<usize>,
    }

    impl Listener for Dropped {
        fn invalidate(&self, id: &str, _by_message: bool) {
            self.ids.lock().push(id.to_owned());
        }

        fn flush(&self) {
            *self.flushes.lock() += 1;
        }
    }

    fn listen(registry: &Registry, prefix: &str) -> Arc<Dropped> {
        let listener = Arc::default();
        registry.add(prefix, Arc::downgrade(&listener), || {});
        listener
    }

    #[test]
    fn no_prefix_begins_with_another() {
        let registry = Registry::default();
        let prefixes =
            ["cache:billing:product:", "cache:billing:", "cache:billing@2:", "cache:orders:a:", "cache:orders:b:"];
        let mut listeners: Vec<_> = prefixes.iter().map(|prefix| listen(&registry, prefix)).collect();
        let prefixes = registry.prefixes();
        assert_eq!(prefixes, ["cache:billing:", "cache:billing@2:", "cache:orders:a:", "cache:orders:b:"]);
        listeners.remove(1);
        assert_eq!(registry.prefixes()[0], "cache:billing:product:");
        assert!(registry.is_covered_by(&prefixes, || {}), "fewer keys, with the same prefixes");
        listeners.push(listen(&registry, "cache:more:"));
        assert!(!registry.is_covered_by(&prefixes, || panic!("not covered")));
    }

    #[test]
    fn an_invalidation_reaches_the_listeners_of_its_prefix() {
        let registry = Registry::default();
        let (product, order) = (listen(&registry, "cache:billing:product:"), listen(&registry, "cache:billing:order:"));
        registry.invalidated(b"cache:billing:product:7");
        registry.invalidated(b"cache:billing:product");
        registry.invalidated(b"cache:billing:product:\xFF");
        registry.invalidate("cache:billing:product:8", false);
        assert_eq!(*product.ids.lock(), ["7", "8"]);
        assert!(order.ids.lock().is_empty());
        registry.flush("cache:billing:order:");
        registry.flush("");
        assert_eq!((*product.flushes.lock(), *order.flushes.lock()), (1, 2));
    }
}
