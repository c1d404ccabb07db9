//! For the project's own proofs, and not part of the public interface: the guards of the protocol by name. With the feature
//! `__proof` also what proofs need to take guards out, to hook into each step, and to look at internals.

#[cfg(feature = "__proof")]
mod internals;

#[cfg(feature = "__proof")]
pub use self::internals::{
    Failpoint, Phase, Rig, Step, StoredHash, decode, encode, flights, keys, keys_under, parts_of_key,
};

macro_rules! guards {
    ($($(#[$of:meta])* $list:ident: $number:literal { $($(#[$rule:meta])* $guard:ident = $name:literal,)* })*) => {
        /// A rule of the protocol. Proofs take out one at a time, to show that they would notice a violation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Guard {
            $($($(#[$rule])* $guard,)*)*
        }

        impl Guard {
            $($(#[$of])* pub const $list: [Self; $number] = [$(Self::$guard),*];)*

            /// The guard's name on a command line.
            pub fn name(self) -> &'static str {
                match self {
                    $($(Self::$guard => $name,)*)*
                }
            }
        }
    };
}

guards! {
    /// The guards of what is stored in Redis.
    STORED: 9 {
        /// A fill checks that its load still holds the lease.
        TokenCheck = "token-check",
        /// An invalidation revokes the lease.
        Revocation = "revocation",
        /// An invalidation deletes the lease before the entry.
        LeaseFirst = "lease-first",
        /// An update that finds no entry revokes the lease in the same step.
        AtomicRevocation = "atomic-revocation",
        /// A call takes a flight's result only if what justifies it came after the call's start.
        TimestampRule = "timestamp-rule",
        /// Each attempt to acquire a lease has a token of its own.
        FreshTokens = "fresh-tokens",
        /// Whoever acquires a lease looks at the entry after the grant.
        Recheck = "recheck",
        /// An update deletes a not-found entry and never sets fields in it.
        WholeNotFound = "whole-not-found",
        /// A stale record is served only to a get whose own read found it.
        OwnRead = "own-read",
    }
    /// The guards of loads, without which nothing old is served.
    LOADS: 2 {
        /// A lease is taken over only from a mark that is still there: without it, a load displaces another.
        MarkCheck = "mark-check",
        /// An unchanged answer confirms the record that was found after the grant: without it, another record lives on.
        GrantedRecord = "granted-record",
    }
    /// The guards against servers that come back, or take over, with an older state.
    TAKEOVER: 2 {
        /// A process invalidates what it has written anew after another server has taken over.
        Replay = "replay",
        /// An answer that may come from another server than the one that was asked is not used if it may be older than a write.
        AnswerCheck = "answer-check",
    }
    /// The guards of near caches.
    NEAR: 4 {
        /// A near cache keeps what was read only if the key's epoch is still the one from before the read.
        NearEpoch = "near-epoch",
        /// A near cache is emptied when messages may have been missed.
        NearFlush = "near-flush",
        /// A near cache is used only for a limited time after the server has answered a heartbeat.
        NearHeartbeat = "near-heartbeat",
        /// A write of this process drops the record from its near caches.
        NearOwnWrite = "near-own-write",
    }
}
