//! The contract of the protocol's steps, behind which a store may be anything.
//!
//! Each step is told here in full, so that `memory` and `redis` can be read as two ways of keeping the same promises. All
//! but `acquire`, `invalidate` and `sweep` are atomic for their key. `invalidate` deletes the lease first, and then the entry;
//! so does `update` while a cluster moves the key to another server.
//!
//! Two steps in this order are as good as one. A lease that is granted between them is granted after the commit that the
//! write is about, and its load, which begins after the grant, reads what is at least as new. Loads from before are fenced.
//! The other way round, such a load could fill between the two, and its entry would stay.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::OnceLock;
use std::time::Duration;

use crate::cacheable::Schema;
use crate::entry::{Entry, Found, META};
use crate::error::{BoxError, Error};
use crate::key::Key;
use crate::record::{Changes, Hash, StoredField};

/// The most fields that are read by their names: with more of them, the names cost more than they save.
const MOST_SELECTED: usize = 12;

/// The name of one lease: 128 random bits, drawn anew for every attempt to acquire one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token(pub(super) String);

impl Token {
    pub(crate) fn new() -> Self {
        let mut text = String::with_capacity(32);
        // Writing to a String cannot fail.
        let _ = write!(text, "{:032x}", rand::random::<u128>());
        Self(text)
    }

    /// The mark of a load that failed a moment ago, and is not to be tried again yet: it stands at L in place of a token.
    pub(crate) fn failed_load() -> Self {
        Self("failed".to_owned())
    }
}

/// The outcome of an attempt to acquire a lease.
#[derive(Debug)]
pub(crate) struct Acquired {
    /// Whether the lease is the caller's now.
    pub(crate) granted: bool,
    /// What was stored, looked at after the lease was granted or refused.
    pub(crate) found: Option<Found>,
    /// How long another holder's lease will last, if it isn't renewed.
    pub(crate) busy_for: Option<Duration>,
    /// Whether there is no holder, but the mark of a failed load.
    pub(crate) postponed: bool,
}

/// What happened to a fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    /// The entry is stored, and the lease used up.
    Accepted,
    /// The lease was no longer the caller's: nothing was written.
    Fenced,
}

/// What an update does to the entry that it was shown.
#[derive(Debug)]
pub(crate) enum Decision {
    /// The entry is a whole record: change these fields (`None` removes one), and its lifetime only if one is given.
    Apply { changes: Changes, ttl: Option<Duration> },
    /// Anything else: delete what is there.
    Drop,
}

/// Looks at an entry and decides; may be called again when the entry has changed in between. An error ends the update.
pub(crate) type Decide<'a> = dyn FnMut(Option<Found>) -> Result<Decision, Error> + Send + 'a;

/// Gets what was found for each of several keys, by its place among them.
pub(crate) type Each<'a> = dyn FnMut(usize, Option<Found>) + Send + 'a;

/// Which fields of an entry are read.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    /// Beside `~meta`; nothing for all.
    names: Cow<'static, [&'static str]>,
    encoded: OnceLock<Vec<u8>>,
}

/// All fields.
pub(crate) static ALL: Selection = Selection::new(Cow::Borrowed(&[]));

impl Selection {
    const fn new(names: Cow<'static, [&'static str]>) -> Self {
        Self { names, encoded: OnceLock::new() }
    }

    /// What a reader of a struct wants.
    pub(crate) fn of(schema: &Schema) -> Self {
        // Those that have aliases are looked for under several names.
        Self::by_name(Cow::Borrowed(if schema.aliases.is_empty() { schema.fields } else { &[] }))
    }

    /// What a reader of some fields wants: these names, and that of an id, which all records have.
    pub(crate) fn with_id(mut names: Vec<&'static str>, schema: &Schema) -> Self {
        names.extend(schema.ids.first());
        Self::by_name(Cow::Owned(names))
    }

    fn by_name(names: Cow<'static, [&'static str]>) -> Self {
        Self::new(if names.len() > MOST_SELECTED { Cow::Borrowed(&[]) } else { names })
    }

    /// Whether a read of these fields sees nothing of an entry that is there.
    pub(crate) fn overlooks(&self, entry: &Entry) -> bool {
        let (Some(names), Entry::Hash(Hash::Whole(fields))) = (self.names(), entry) else {
            return false;
        };
        let is_seen = |name: &[u8]| *name == *META || names.iter().any(|seen| *seen.as_bytes() == *name);
        !fields.iter().any(|(name, _)| is_seen(name))
    }

    /// How a store writes the names, kept for the next read.
    pub(super) fn encoded(&self, encode: impl FnOnce(&[&'static str]) -> Vec<u8>) -> &[u8] {
        self.encoded.get_or_init(|| encode(&self.names))
    }

    /// The names, unless all fields are selected.
    pub(crate) fn names(&self) -> Option<&[&'static str]> {
        Some(&*self.names).filter(|names| !names.is_empty())
    }
}

/// An entry and its lease.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) found: Option<Found>,
    pub(crate) lease_ttl: Option<Duration>,
}

/// A step that failed. Unless it was refused, its outcome is unknown.
#[derive(Debug)]
pub(crate) enum StepError {
    /// The backend could not be reached, or refused; `answered` tells which, if it is the backend's doing at all.
    Failed { advice: &'static str, cause: BoxError, answered: Option<bool> },
    /// One round trip of several took longer than `operation_timeout`.
    TimedOut,
    /// [`Decide`] returned an error, before anything was written.
    Refused(Error),
}

/// The part of a type's keys that one step of a sweep removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Swept {
    Leases,
    Entries,
}

/// Where a sweep goes on; `None`: at its beginning, or after its end.
pub(crate) type Cursor = Option<Position>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// The server, by its number.
    pub(super) server: usize,
    /// What that server calls the place.
    pub(super) at: u64,
    /// The number of the connections and of the topology that this belongs to: others have other places.
    pub(super) generation: u64,
}

/// The steps of the protocol. K is the entry at the data key, L the lease at the lock key.
pub(crate) trait Steps {
    /// Fails unless the backend answers within `limit`: the server that has the key, if one is given.
    async fn ping(&self, key: Option<&Key>, limit: Duration) -> Result<(), StepError>;

    /// Reads K, at least what is selected of it, with how long it will be there if that is asked for. Without any of the
    /// selected fields there may be no K.
    async fn read(&self, key: &Key, selection: &Selection, with_ttl: bool) -> Result<Option<Found>, StepError>;

    /// Reads several entries that one server has as [`read`](Self::read) does, in one round trip. One that `each` doesn't get is
    /// to be read by itself.
    async fn read_many(
        &self,
        keys: &[&Key],
        selection: &Selection,
        with_ttl: bool,
        each: &mut Each<'_>,
    ) -> Result<(), StepError>;

    /// Sets L to `token` for `lease`, if L is free or is no proper lease; then looks at K. An attempt that is made again has a
    /// new token, after the first was abandoned.
    async fn acquire(&self, key: &Key, token: &mut Token, lease: Duration) -> Result<Acquired, StepError>;

    /// Prolongs L, if it still is `token`; returns whether it was.
    async fn renew(&self, key: &Key, token: &Token, lease: Duration) -> Result<bool, StepError>;

    /// If L still is `token`: replaces K whole, with its lifetime, and deletes L. Without fields there is no K then.
    async fn fill(
        &self,
        key: &Key,
        token: &Token,
        fields: Vec<StoredField>,
        ttl: Duration,
    ) -> Result<Filled, StepError>;

    /// Deletes L, if it still is `token`.
    async fn abandon(&self, key: &Key, token: &Token) -> Result<(), StepError>;

    /// Sets L to the mark of a failed load for `pause`, if it still is `token`.
    async fn postpone(&self, key: &Key, token: &Token, pause: Duration) -> Result<(), StepError>;

    /// Deletes L, and then K; returns whether K was there. Deleting K counts only if it was carried out after L was deleted:
    /// when either was redirected or failed, both are deleted again, in this order. A read that starts after the reply is no
    /// older than the primary's record was when L was deleted. It works on a server that has reached maxmemory, too.
    async fn invalidate(&self, key: &Key) -> Result<bool, StepError>;

    /// Deletes L or K alone; returns whether it was there.
    async fn delete(&self, key: &Key, what: Swept) -> Result<bool, StepError>;

    /// Shows K to `decide` as [`read`](Self::read) does, carries out what it decides if K is still the
    /// same, also where it was shown nothing of it, and deletes L in any case; returns whether changes were applied. Starts
    /// again, up to `limit`, when K has changed in between.
    async fn update(&self, key: &Key, selection: &Selection, decide: &mut Decide<'_>) -> Result<bool, StepError>;

    /// Reads K, how long it will be there, and the same of L.
    async fn look(&self, key: &Key) -> Result<Look, StepError>;

    /// Deletes some of the leases or of the entries whose data key begins with `prefix`, and returns where to go on. Once
    /// it has come to the end, all are gone that were there at the beginning.
    async fn sweep(&self, prefix: &str, swept: Swept, cursor: Cursor) -> Result<Cursor, StepError>;
}
