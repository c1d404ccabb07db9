//! What the cache could not be told yet, for people to look at.

/// The records of one struct that are read around the cache, as [`Cache::pending`](crate::Cache::pending) found them:
/// an `invalidate` or an update of them failed, and its invalidation is tried again in the background. It is known to
/// this process alone, to all caches over the same [`Backend`](crate::Backend), and lost when the process ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Pending {
    /// The entries' keys, in no order.
    pub keys: Vec<String>,
    /// Whether all records of the struct are meant, because there were more failures than
    /// [`max_pending_invalidations`](crate::BackendBuilder::max_pending_invalidations).
    pub whole_type: bool,
}

impl Pending {
    /// Whether the cache has been told of everything.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && !self.whole_type
    }
}
