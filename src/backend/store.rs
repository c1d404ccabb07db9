//! The contract of every store: the steps of the protocol, each described in full. `memory` and `redis` are two
//! implementations, and `tests/contract` tests both.
//!
//! K is the entry at the data key, L the lease at the lock key. All steps but `acquire`, `invalidate` and `delete_prefix` are
//! atomic for their key. `invalidate` deletes L first and then K, and so does `update` while a cluster moves the key to another
//! server; `docs/protocol.md` says why this order is as good as one step.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::error::BoxError;
use crate::record::{Changes, Found, Key, Meta, Selection, StoredField};

/// The text at L: the name of one lease, which has 128 random bits, drawn anew for every attempt to acquire one; or a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token(pub(super) String);

/// Begins the name of a lease that was taken over from a mark.
const AFTER_MARK: &str = "after-mark:";

impl Token {
    pub(crate) fn new() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }

    pub(crate) fn of(mark: Mark) -> Self {
        let text = match mark {
            Mark::Failed => "failed",
            Mark::Unstored => "unstored",
        };
        Self(text.to_owned())
    }

    /// The name of this lease if it is taken over from a mark.
    pub(crate) fn after_mark(&self) -> Self {
        Self(format!("{AFTER_MARK}{}", self.0))
    }

    /// Whether this lease was taken over from a mark.
    pub(crate) fn is_after_mark(&self) -> bool {
        self.0.starts_with(AFTER_MARK)
    }
}

/// Stands at L in place of a lease whose load has left nothing in K.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The load has failed, and its stale entry is served: nobody is to try again for a while.
    Failed,
    /// The load has failed, or its result can't be stored: nobody is to wait for the next load to store something.
    Unstored,
}

/// The outcome of an attempt to acquire a lease.
#[derive(Debug)]
pub(crate) struct Acquired {
    /// Whether the lease is the caller's now.
    pub(crate) granted: bool,
    /// The entry, which was read after the lease was granted or refused.
    pub(crate) found: Option<Found>,
    /// The other holder's lease, or the mark, if the lease was not granted.
    pub(crate) held: Option<Held>,
}

/// Another holder's lease, or a mark.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) by: Token,
    /// How long it will lie there, if it isn't renewed.
    pub(crate) left: Duration,
}

impl Acquired {
    /// The mark at L, if there is one.
    pub(crate) fn mark(&self) -> Option<Mark> {
        let held = &self.held.as_ref()?.by;
        [Mark::Failed, Mark::Unstored].into_iter().find(|mark| *held == Token::of(*mark))
    }
}

/// The outcome of a fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    /// The entry is stored, and the lease used up.
    Accepted,
    /// The lease was no longer the caller's: nothing was written.
    Fenced,
}

/// The outcome of a touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Touched {
    /// The entry lives on, and the lease is used up.
    Accepted,
    /// There is no entry. The lease is still the caller's.
    Gone,
    /// The lease was no longer the caller's: nothing was written.
    Fenced,
}

/// The change that an update makes, after its look at the entry.
#[derive(Debug)]
pub(crate) enum Decision {
    /// The entry is a whole record: change these fields (`None` removes one), and its lifetime only if one is given.
    Apply { changes: Changes, ttl: Option<Duration> },
    /// Anything else: delete the entry.
    Delete,
}

/// The outcome of a part of an update.
#[derive(Debug)]
pub(crate) enum Attempt<R> {
    Done(R),
    /// Nothing was written: the update has to watch the entry again.
    Again,
}

/// Called with the index of a key and what was found there.
pub(crate) type Each<'a> = dyn FnMut(usize, Option<Found>) + Send + 'a;

/// An entry and its lease.
#[derive(Debug)]
pub(crate) struct EntryAndLease {
    pub(crate) found: Option<Found>,
    /// How long the lease, or the failure mark, will be there.
    pub(crate) lease_ttl: Option<Duration>,
}

/// A step that failed: whether it was carried out is unknown, unless the server refused it.
#[derive(Debug)]
pub(crate) enum StoreError {
    /// The server could not be reached, or has refused the step: then it has `answered`. `None` if the server isn't to blame.
    Failed { advice: &'static str, cause: BoxError, answered: Option<bool> },
    /// One round trip of several took longer than `operation_timeout`.
    TimedOut,
}

/// The cause of a step that fails until somebody changes the server: the user lacks a permission, or the server a command.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Forbidden(pub(super) String);

/// The cause for a key whose invalidation is pending, or was when the entry was asked for.
#[derive(Debug, thiserror::Error)]
#[error("it may be older than the primary")]
pub(crate) struct MayBeOld;

pub(crate) type StoreResult<R> = Result<R, StoreError>;

/// One of the two keys of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    Lease,
    Entry,
}

/// The steps of the protocol.
pub(crate) trait Store {
    /// Fails unless the store answers within `limit`: the server that has the key, if one is given, or else any.
    async fn ping(&self, key: Option<&Key>, limit: Duration) -> StoreResult<()>;

    /// Reads K, at least its selected fields, and `with_ttl` how long it will be there. If K has none of the fields, the result
    /// may be `None`.
    async fn read(&self, key: &Key, selection: &Selection, with_ttl: bool) -> StoreResult<Option<Found>>;

    /// Reads entries that one server has, each as [`read`](Self::read) does, in one round trip. A key that `each` isn't called
    /// with has to be read by itself.
    async fn read_many(
        &self,
        keys: &[&Key],
        selection: &Selection,
        with_ttl: bool,
        each: &mut Each<'_>,
    ) -> StoreResult<()>;

    /// Sets L to `token` for `lease`, if L is free or is neither a proper lease nor a mark; then reads K. If the step has to be
    /// sent again, the first token is abandoned, and `token` becomes a new one.
    async fn acquire(&self, key: &Key, token: &mut Token, lease: Duration) -> StoreResult<Acquired>;

    /// Prolongs L, if it still is `token`; returns whether it was.
    async fn renew(&self, key: &Key, token: &Token, lease: Duration) -> StoreResult<bool>;

    /// Sets L to `token` for `lease`, if L is `mark`; then reads K.
    async fn take_over(&self, key: &Key, mark: Mark, token: &Token, lease: Duration) -> StoreResult<Acquired>;

    /// If L still is `token`: replaces all of K and its lifetime, and deletes L. Without fields K is deleted, and L becomes the
    /// unstored mark for `ttl`.
    async fn fill(&self, key: &Key, token: &Token, fields: Vec<StoredField>, ttl: Duration) -> StoreResult<Filled>;

    /// Deletes L, if it still is `token`.
    async fn abandon(&self, key: &Key, token: &Token) -> StoreResult<()>;

    /// If L still is `token`, and K is there: gives K this `~meta` and this lifetime, and deletes L. `meta` is `None` if K has
    /// it already.
    async fn touch(&self, key: &Key, token: &Token, meta: Option<Meta>, ttl: Duration) -> StoreResult<Touched>;

    /// Sets L to `mark` for `ttl`, if it still is `token`.
    async fn mark(&self, key: &Key, token: &Token, mark: Mark, ttl: Duration) -> StoreResult<()>;

    /// Deletes L, and then K; returns whether K was there. Deleting K counts only if it was carried out after L was deleted:
    /// when either command was redirected or failed, both are sent again, in this order. A read that starts after the reply is
    /// no older than the primary's record was when L was deleted. Works on a server that has reached maxmemory, too.
    async fn invalidate(&self, key: &Key) -> StoreResult<bool>;

    /// Deletes L or K alone; returns whether it was there.
    async fn delete(&self, key: &Key, kind: KeyKind) -> StoreResult<bool>;

    /// Begins an update of K, which is shown at least what is selected.
    fn update<'a>(&'a self, key: &'a Key, selection: &'a Selection) -> Box<dyn StoreUpdate + 'a>;

    /// Reads K, and how long K and L will be there. The unstored mark, which keeps nobody from loading, counts as no L.
    async fn look(&self, key: &Key) -> StoreResult<EntryAndLease>;

    /// Deletes the leases, or the entries, whose data key is `prefix` and an id: all that were there at the beginning. Returns
    /// how many it has deleted.
    async fn delete_prefix(&self, prefix: &str, kind: KeyKind) -> StoreResult<u64>;
}

/// An update in one store. A commit follows each watch that is done, until one of the commits is done.
pub(crate) trait StoreUpdate: Send {
    /// Watches K, and reads it as [`Store::read`] does, with how long it will be there. It may show nothing of an entry that is
    /// there.
    fn watch(&mut self) -> BoxFuture<'_, StoreResult<Attempt<Option<Found>>>>;

    /// Carries out the decision, if K is still the same, and deletes L in any case; returns whether changes were applied.
    /// Where the store refuses that, K and L are deleted as by [`Store::invalidate`].
    fn commit(&mut self, decision: Decision) -> BoxFuture<'_, StoreResult<Attempt<bool>>>;
}
