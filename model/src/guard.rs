//! The guards of the protocol, each of which can be taken out to see what it is for.

pub(crate) use cache_aside::proof::Guard;

use crate::state::Delete;

/// The protocol with all its guards, or with all but one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guards {
    without: Option<Guard>,
}

impl Guards {
    pub(crate) const ALL: Self = Self { without: None };

    pub(crate) const fn without(guard: Guard) -> Self {
        Self { without: Some(guard) }
    }

    pub(crate) fn are_all_in(self) -> bool {
        self.without.is_none()
    }

    pub(crate) fn has(self, guard: Guard) -> bool {
        self.without != Some(guard)
    }

    /// The pipeline of an `invalidate`, in its order.
    pub(crate) fn pipeline(self) -> [Delete; 2] {
        if self.has(Guard::LeaseFirst) { [Delete::Lease, Delete::Entry] } else { [Delete::Entry, Delete::Lease] }
    }
}
