//! Failed invalidations that wait to be applied, as users see them: [`Pending`].

/// The records of one struct whose `invalidate` or update failed, as [`Cache::pending`](crate::Cache::pending) lists them.
///
/// Their invalidation is retried in the background. Until it is applied, this process reads these records around the cache,
/// in all caches over the same [`Backend`](crate::Backend). Other processes don't know of them, and they are lost when this
/// process ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Pending {
    /// The entries' keys, in no particular order.
    pub keys: Vec<String>,
    /// Whether all records of the struct are read around the cache, because there were more failures than
    /// [`max_pending_invalidations`](crate::BackendBuilder::max_pending_invalidations).
    pub whole_type: bool,
}

impl Pending {
    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && !self.whole_type
    }
}
