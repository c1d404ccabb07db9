//! The guards of the protocol, each of which can be taken out to see what it is for.

/// A line of the protocol without which a promise breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// A fill writes only while the lease still is its token.
    TokenCheck,
    /// An invalidation deletes the lease too.
    Revocation,
    /// An update revokes in one step with its look at the entry, also when nothing was there.
    AtomicRevocation,
    /// A call takes a flight's result only if it started before the step that justifies it.
    StampRule,
    /// Each acquire has a token of its own.
    FreshTokens,
    /// An acquire looks at the entry after the lease was granted.
    Recheck,
    /// An update deletes a not-found entry and merges nothing into it.
    WholeNotFound,
}

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

    pub(crate) fn has(self, guard: Guard) -> bool {
        self.without != Some(guard)
    }
}
