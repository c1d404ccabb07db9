//! For the project's own proofs, and not part of the public interface: the guards of the protocol by name. With the feature
//! `__proof` also what proofs need to take guards out, to hook into each step, and to look at internals.

#[cfg(feature = "__proof")]
mod internals;

#[cfg(feature = "__proof")]
pub use self::internals::{Failpoint, Phase, Rig, Step, StoredHash, decode, encode, flights, keys};

/// A rule of the protocol. Proofs take out one at a time, to show that they would notice a violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guard {
    /// A fill checks that its load still holds the lease.
    TokenCheck,
    /// An invalidation revokes the lease.
    Revocation,
    /// An invalidation deletes the lease before the entry.
    LeaseFirst,
    /// An update that finds no entry revokes the lease in the same step.
    AtomicRevocation,
    /// A call takes a flight's result only if what justifies it came after the call's start.
    TimestampRule,
    /// Each attempt to acquire a lease has a token of its own.
    FreshTokens,
    /// Whoever acquires a lease looks at the entry after the grant.
    Recheck,
    /// An update deletes a not-found entry and never sets fields in it.
    WholeNotFound,
    /// A near cache keeps what was read only if the key's epoch is still the one from before the read.
    NearEpoch,
    /// A near cache is emptied when messages may have been missed.
    NearFlush,
    /// A near cache is used only for a limited time after the server has answered a heartbeat.
    NearHeartbeat,
    /// A write of this process drops the record from its near caches.
    NearOwnWrite,
}

impl Guard {
    /// The guards of what is stored in Redis.
    pub const STORED: [Self; 8] = [
        Self::TokenCheck,
        Self::Revocation,
        Self::LeaseFirst,
        Self::AtomicRevocation,
        Self::TimestampRule,
        Self::FreshTokens,
        Self::Recheck,
        Self::WholeNotFound,
    ];

    /// The guards of near caches.
    pub const NEAR: [Self; 4] = [Self::NearEpoch, Self::NearFlush, Self::NearHeartbeat, Self::NearOwnWrite];

    /// The guard's name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::TokenCheck => "token-check",
            Self::Revocation => "revocation",
            Self::LeaseFirst => "lease-first",
            Self::AtomicRevocation => "atomic-revocation",
            Self::TimestampRule => "timestamp-rule",
            Self::FreshTokens => "fresh-tokens",
            Self::Recheck => "recheck",
            Self::WholeNotFound => "whole-not-found",
            Self::NearEpoch => "near-epoch",
            Self::NearFlush => "near-flush",
            Self::NearHeartbeat => "near-heartbeat",
            Self::NearOwnWrite => "near-own-write",
        }
    }
}
