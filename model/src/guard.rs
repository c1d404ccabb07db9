//! The guards of the protocol. Each can be taken out, to show what goes wrong without it.

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

    /// The commands of an `invalidate`, in the order of its pipeline.
    pub(crate) fn pipeline(self) -> [Delete; 2] {
        if self.has(Guard::LeaseFirst) { [Delete::Lease, Delete::Entry] } else { [Delete::Entry, Delete::Lease] }
    }
}
