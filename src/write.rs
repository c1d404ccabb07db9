//! Writes: `invalidate` deletes the entry of a record, `clear` those of all records, `update` changes a live, whole record in
//! place and deletes any other entry.
//!
//! All revoke the lease of a load that is under way, and let no later get join this process' own flight. All reach the versions in `also_invalidates` too, each by a step of its own, since their keys may lie in
//! different cluster slots. A failure of one leaves out no other, and makes the call an error.

use std::any::Any;
use std::sync::Arc;

use futures_util::future::{BoxFuture, join, join_all};
use futures_util::{FutureExt, StreamExt, stream};
use tracing::Instrument;

use crate::backend::{Attempt, Decision, Update};
use crate::backoff::Backoff;
use crate::cache::{Core, UpdateTtl};
use crate::error::Error;
use crate::metrics::spans;
use crate::proof::Guard;
use crate::record::{Changes, Entry, FieldError, Found, Hash, InvalidId, Key, Notes, Reading, Record, entry};

/// The number of keys that are sent together: enough to keep a connection busy, few enough for each to meet its deadline.
const AT_A_TIME: usize = 128;

/// A caller's change of a record, with its type erased.
type Modify<'a> = Box<dyn FnMut(&mut dyn Any) + Send + 'a>;

impl Core {
    /// Invalidates the record in every version, and returns whether any of them had an entry. The key counts as written from
    /// this call on: if the future is dropped, even before its first poll, the invalidation is retried in the background.
    pub(crate) fn invalidate(&self, key: Key) -> impl Future<Output = Result<bool, Error>> + '_ {
        let span = spans::invalidate(self.shape, &key);
        self.invalidate_within(key).instrument(span)
    }

    /// Without a span of its own.
    fn invalidate_within(&self, key: Key) -> impl Future<Output = Result<bool, Error>> + '_ {
        let (own, others) = (self.backend.invalidate(key.clone()), self.invalidate_other_versions(&key));
        async move {
            let (own, others) = join(own, others).await;
            self.overtake(&key);
            let invalidated = own.and_then(|was_there| Ok(was_there | others?));
            self.metrics.invalidated(&invalidated);
            invalidated
        }
    }

    /// Lets gets that start now load anew. After a failed write too, which is retried in the background: they must not join a load
    /// whose lease was revoked, since they could not take its result.
    fn overtake(&self, key: &Key) {
        self.flights.overtake(key);
        self.pauses.end(key);
    }

    pub(crate) fn invalidate_other_versions<'a>(
        &'a self,
        key: &Key,
    ) -> impl Future<Output = Result<bool, Error>> + use<'a> {
        let invalidations = join_all(self.keys.in_other_versions(key).map(|key| self.backend.invalidate(key)));
        async move { invalidations.await.into_iter().try_fold(false, |was_there, result| Ok(was_there | result?)) }
    }

    /// Like `invalidate`, but does nothing before it is polled.
    pub(crate) fn invalidate_when_polled(
        self: Arc<Self>,
        key: Result<Key, InvalidId>,
    ) -> BoxFuture<'static, Result<bool, Error>> {
        async move {
            let Some(key) = self.valid(key)? else { return Ok(false) };
            self.invalidate(key).await
        }
        .boxed()
    }

    pub(crate) fn invalidate_many(
        self: Arc<Self>,
        keys: Vec<Result<Key, InvalidId>>,
    ) -> BoxFuture<'static, Vec<Result<bool, Error>>> {
        async move {
            // All are begun before the first is sent, so that each is retried if this future is dropped.
            let begun = keys.into_iter().map(|key| match self.valid(key) {
                Ok(Some(key)) => self.invalidate_within(key).boxed(),
                Ok(None) => std::future::ready(Ok(false)).boxed(),
                Err(error) => std::future::ready(Err(error)).boxed(),
            });
            let begun: Vec<_> = begun.collect();
            let span = spans::invalidate_many(self.shape, begun.len());
            stream::iter(begun).buffered(AT_A_TIME).collect().instrument(span).await
        }
        .boxed()
    }

    /// Deletes all entries, of every version, and returns how many there were.
    pub(crate) fn clear(self: Arc<Self>) -> BoxFuture<'static, Result<u64, Error>> {
        async move {
            // All are begun before the first is sent, so that each is retried if this future is dropped.
            let begun: Vec<_> = self.keys.prefixes().map(|prefix| self.backend.clear(prefix)).collect();
            let sweeps = async {
                let mut deleted = Ok(0);
                // One after the other: each is many commands. A failure leaves out no other version.
                for sweep in begun {
                    let swept = sweep.await;
                    deleted = deleted.and_then(|before| Ok(before + swept?));
                }
                deleted
            };
            let deleted = sweeps.instrument(spans::clear(self.shape)).await;
            self.flights.overtake_all();
            deleted
        }
        .boxed()
    }

    pub(crate) fn update_fields(
        self: Arc<Self>,
        key: Result<Key, InvalidId>,
        changes: Vec<Result<Changes, FieldError>>,
    ) -> BoxFuture<'static, Result<bool, Error>> {
        async move {
            let Some(key) = self.valid(key)? else { return Ok(false) };
            let changes = last_of_each_field(changes).map_err(|mistake| self.warn_unencodable(&key, &mistake));
            self.update(&key, |shown| {
                let may_change = match shown.read_by(|hash| self.shape.decode_noted(hash)) {
                    Reading::Record((_, notes)) => !notes.has_other,
                    Reading::NotFound => !self.backend.enforces(Guard::WholeNotFound),
                    Reading::Stale(..) | Reading::Unreadable(_) => false,
                };
                Ok(changes.clone().ok().filter(|_| may_change))
            })
            .await
        }
        .boxed()
    }

    /// Returns the changed record, if the change was applied.
    pub(crate) fn modify<'a>(
        self: Arc<Self>,
        key: Result<Key, InvalidId>,
        mut change: Modify<'a>,
    ) -> BoxFuture<'a, Result<Option<Record>, Error>> {
        async move {
            let Some(key) = self.valid(key)? else { return Ok(None) };
            let mut latest = None;
            let decide = |shown: &Found| {
                let reading = shown.read_by(|hash| self.shape.decode_noted(hash));
                let Reading::Record((mut record, Notes { has_other: false, .. })) = reading else {
                    return Ok(None);
                };
                let (id, before) = (self.id_text(&record), self.shape.fields_of(&record));
                // It was decoded right here, so it is not shared.
                change(Arc::get_mut(&mut record).expect("a record that was just decoded has one owner"));
                if self.id_text(&record) != id {
                    return Err(Error::invalid_id(key.as_str(), "`modify` has changed it; nothing was written"));
                }
                let changes = differences(before, self.shape.fields_of(&record));
                latest = Some(record);
                Ok(changes.map_err(|mistake| self.warn_unencodable(&key, &mistake)).ok())
            };
            let applied = self.update(&key, decide).await?;
            Ok(latest.filter(|_| applied))
        }
        .boxed()
    }

    /// Applies the changes that `decide` returns for the entry. If it returns none, the entry is deleted.
    async fn update(
        &self,
        key: &Key,
        mut decide: impl FnMut(&Found) -> Result<Option<Changes>, Error> + Send,
    ) -> Result<bool, Error> {
        if self.backend.is_pending(key) {
            // Any field of the entry may be older than the primary.
            return self.invalidate(key.clone()).await.map(|_was_there| false);
        }
        // Begun before the first poll of what follows: outside of a runtime that isn't polled, and the key must be pending.
        let mut update = self.backend.update(key, &self.selection);
        let update = async move {
            let mut backoff = Backoff::between_attempts();
            loop {
                if let Attempt::Done(shown) = update.watch().await? {
                    let changes = match shown.as_ref().map(&mut decide).transpose() {
                        Ok(changes) => changes.flatten(),
                        Err(error) => {
                            update.cancel();
                            return Err(error);
                        }
                    };
                    let decision = changes.and_then(|changes| self.decision(key, &shown?.entry, changes));
                    if let Attempt::Done(applied) = update.commit(decision.unwrap_or(Decision::Delete)).await? {
                        return Ok(applied);
                    }
                }
                tokio::time::sleep(backoff.next()).await;
            }
        };
        let update = Update::limited(&self.backend, key, self.policy.update_timeout, update.boxed());
        let update = join(update, self.invalidate_other_versions(key));
        let (own, others) = update.instrument(spans::update(self.shape, key)).await;
        self.overtake(key);
        let updated = own.and_then(|applied| others.map(|_was_there| applied));
        self.metrics.updated(&updated);
        updated
    }

    fn warn_unencodable(&self, key: &Key, mistake: &FieldError) {
        self.metrics.counts.encode_errors.add();
        let (keys, cause) = (key.prefix(), std::error::Error::source(mistake).map(ToString::to_string));
        self.backend.repeats().warn(format!("update {keys} {mistake}"), |times| {
            tracing::warn!(keys, %mistake, cause, times, "a value could not be encoded: its entry is removed");
        });
    }

    /// Checks the entry that an update would leave, and gives it a new lifetime if the policy says so.
    fn decision(&self, key: &Key, shown: &Entry, changes: Changes) -> Option<Decision> {
        let Entry::Hash(hash) = shown else {
            return None;
        };
        let fields = entry::named(hash, self.selection.names().unwrap_or_default());
        let is_alias = |name: &[u8]| self.shape.schema.aliases.iter().any(|alias| *name == *alias.as_bytes());
        let has_alias = fields.iter().any(|(name, _)| is_alias(name));
        let becomes = entry::changed(fields, changes.clone());
        // An update sets the field's own name only: a process that knows only the alias would go on reading the old value.
        if has_alias || !self.fits(key, entry::size(&becomes)) {
            return None;
        }
        let ttl = match self.policy.update_ttl {
            UpdateTtl::Keep => None,
            UpdateTtl::Refresh => {
                let becomes = Entry::Hash(Hash::Whole(Arc::new(becomes)));
                match (Found { entry: becomes, left: None }).read(self.shape) {
                    Reading::Record(record) => {
                        Some(self.policy.ttl_of(&record, None)? + shown.meta().stale.unwrap_or_default())
                    }
                    Reading::Stale(..) | Reading::NotFound | Reading::Unreadable(_) => return None,
                }
            }
        };
        Some(Decision::Apply { changes, ttl })
    }
}

/// The changes by field. If a field is changed several times, the last change.
fn last_of_each_field(changes: Vec<Result<Changes, FieldError>>) -> Result<Changes, FieldError> {
    let mut last = Changes::new();
    for fields in changes {
        for (field, value) in fields? {
            last.retain(|(other, _)| *other != field);
            last.push((field, value));
        }
    }
    Ok(last)
}

/// The fields that a modification has changed. Both sides have all fields, in declaration order.
fn differences(before: Result<Changes, FieldError>, after: Result<Changes, FieldError>) -> Result<Changes, FieldError> {
    let pairs = before?.into_iter().zip(after?);
    Ok(pairs.filter(|(before, after)| before != after).map(|(_, after)| after).collect())
}
