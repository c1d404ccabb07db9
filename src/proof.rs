//! For the project's own proofs, not part of the public interface: the protocol's guards by name, and with the feature
//! `__proof` hooks at every step, guards that can be taken out, and a look at what is private.

#[cfg(feature = "__proof")]
mod insides;

#[cfg(feature = "__proof")]
pub use self::insides::{Moment, Point, Rig, Step, StoredHash, decode, encode, flights, keys};

/// A guard of the protocol. Proofs take one out at a time, to see that they notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guard {
    /// A fill checks that the lease is still its own.
    TokenCheck,
    /// An invalidation revokes the lease.
    Revocation,
    /// An invalidation deletes the lease before the entry.
    LeaseFirst,
    /// An update revokes the lease in the step that looks at the entry.
    AtomicRevocation,
    /// A call takes a flight's result only if what justifies it came after the call's start.
    TimestampRule,
    /// Each attempt to acquire a lease has a token of its own.
    FreshTokens,
    /// Whoever acquires a lease looks at the entry after the grant.
    Recheck,
    /// An update deletes a not-found entry, and never adds to it.
    WholeNotFound,
    /// A near cache keeps only what has a ticket from before it was read, that no message has made void.
    NearTicket,
    /// A near cache is emptied when messages may have been missed.
    NearFlush,
    /// A near cache is used only for so long after the server has said that it is there.
    NearHeartbeat,
    /// This process' own writes empty its near caches of what they have written.
    NearOwnWrite,
}

impl Guard {
    /// Those of what is stored in Redis.
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

    /// Those of near caches.
    pub const NEAR: [Self; 4] = [Self::NearTicket, Self::NearFlush, Self::NearHeartbeat, Self::NearOwnWrite];

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
            Self::NearTicket => "near-ticket",
            Self::NearFlush => "near-flush",
            Self::NearHeartbeat => "near-heartbeat",
            Self::NearOwnWrite => "near-own-write",
        }
    }
}
