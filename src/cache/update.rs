//! Writes: invalidation, and updates in place as decisions over the entry that the backend shows. An update is applied to a
//! whole record and to nothing else.
//!
//! Each write also invalidates the keys that the record has in the versions of `also_invalidates`: at the same time as its
//! own, each by a step of its own, since they may lie in different cluster slots, and none is left out because
//! another failed. So the call is an error if one of them is, and what it says holds when it returns.
//!
//! What is carried out here also expels this process' own flight of the key: its lease is revoked, so a get that starts now
//! would wait for a result that it can't take.

use std::sync::Arc;

use futures_util::future::{join, join_all};
use tracing::Instrument;

use crate::backend::Decision;
use crate::cache::{Core, UpdateTtl};
use crate::cacheable::{Cacheable, Change};
use crate::codec::FieldError;
use crate::entry::{self, Entry, Found, Reading};
use crate::error::Error;
use crate::key::Key;
use crate::meter::Write;
use crate::proof::Guard;
use crate::record::{Changes, Hash};
use crate::spans;

impl<T: Cacheable> Core<T> {
    /// Invalidates the record in every version; returns whether it was there in any. What is dropped before it is done is
    /// made up for, also before it was polled.
    pub(super) fn invalidate(&self, key: Key) -> impl Future<Output = Result<bool, Error>> + '_ {
        let (own, others) = (self.backend.invalidate(key.clone()), self.invalidate_other_versions(&key));
        async move {
            let (own, others) = join(own, others).instrument(spans::invalidate::<T>(&key)).await;
            // After a failure too, which is made up for in the background.
            self.flights.expel(&key);
            let invalidated = own.and_then(|was_there| Ok(was_there | others?));
            self.meter.wrote(Write::Invalidate, invalidated.as_ref().ok().copied());
            invalidated
        }
    }

    fn invalidate_other_versions<'a>(&'a self, key: &Key) -> impl Future<Output = Result<bool, Error>> + use<'a, T> {
        let invalidations = join_all(self.keys.in_other_versions(key).map(|key| self.backend.invalidate(key)));
        async move { invalidations.await.into_iter().try_fold(false, |was_there, result| Ok(was_there | result?)) }
    }

    pub(super) async fn update_fields(&self, key: &Key, changes: Vec<Change<T>>) -> Result<bool, Error> {
        let changes = last_of_each_field(changes).map_err(|mistake| self.warn_unencodable(key, &mistake));
        self.update(key, |shown| {
            let may_change = match shown.read::<T>() {
                Reading::Record(_) => true,
                Reading::NotFound => !self.backend.holds(Guard::WholeNotFound),
                Reading::Stale(..) | Reading::Unreadable(_) => false,
            };
            Ok(changes.clone().ok().filter(|_| may_change))
        })
        .await
    }

    pub(super) async fn modify(
        &self,
        key: &Key,
        mut change: impl FnMut(&mut T) + Send,
    ) -> Result<Option<Arc<T>>, Error> {
        let mut latest = None;
        let applied = self
            .update(key, |shown| {
                let Reading::Record(mut record) = shown.read::<T>() else {
                    return Ok(None);
                };
                let (id, before) = (record.id(), entry::fields_of(&record));
                change(&mut record);
                if record.id() != id {
                    return Err(Error::invalid_id(key.as_str(), "`modify` has changed it; nothing was written"));
                }
                let changes = differences(before, entry::fields_of(&record));
                latest = Some(Arc::new(record));
                Ok(changes.map_err(|mistake| self.warn_unencodable(key, &mistake)).ok())
            })
            .await?;
        Ok(latest.filter(|_| applied))
    }

    /// Applies the changes that `decide` makes of an entry; where it makes none, the entry is dropped.
    async fn update(
        &self,
        key: &Key,
        mut decide: impl FnMut(&Found) -> Result<Option<Changes>, Error> + Send,
    ) -> Result<bool, Error> {
        if self.backend.is_pending(key) {
            // What is stored may be older than the primary in any field.
            return self.invalidate(key.clone()).await.map(|_was_there| false);
        }
        let mut decide = |shown: Option<Found>| {
            let Some(shown) = shown else {
                return Ok(Decision::Drop);
            };
            let changes = decide(&shown)?;
            Ok(changes.and_then(|changes| self.decision(key, &shown.entry, changes)).unwrap_or(Decision::Drop))
        };
        let update = self.backend.update(key, &self.selection, self.policy.update_timeout, &mut decide);
        let update = join(update, self.invalidate_other_versions(key));
        let (own, others) = update.instrument(spans::update::<T>(key)).await;
        self.flights.expel(key);
        let updated = own.and_then(|applied| others.map(|_was_there| applied));
        self.meter.wrote(Write::Update, updated.as_ref().ok().copied());
        updated
    }

    fn warn_unencodable(&self, key: &Key, mistake: &FieldError) {
        let (keys, cause) = (key.prefix(), std::error::Error::source(mistake).map(ToString::to_string));
        self.backend.repeats().warn(format!("update {keys} {mistake}"), |times| {
            tracing::warn!(keys, %mistake, cause, times, "a value could not be encoded: its entry is removed");
        });
    }

    /// Checks what the entry would become, and gives it a new lifetime if the policy says so.
    fn decision(&self, key: &Key, shown: &Entry, changes: Changes) -> Option<Decision> {
        let Entry::Hash(hash) = shown else {
            return None;
        };
        let fields = entry::named(hash, self.selection.names().unwrap_or_default());
        let is_alias = |name: &[u8]| T::SCHEMA.aliases.iter().any(|alias| *name == *alias.as_bytes());
        let has_alias = fields.iter().any(|(name, _)| is_alias(name));
        let becomes = entry::changed(fields, changes.clone());
        // Set by its own name beside it, the field would stay old for those who know only the other one.
        if has_alias || !self.policy.fits(key, entry::size(&becomes), self.backend.repeats()) {
            return None;
        }
        let ttl = match self.policy.update_ttl {
            UpdateTtl::Keep => None,
            UpdateTtl::Refresh => {
                let becomes = Entry::Hash(Hash::Whole(Arc::new(becomes)));
                match (Found { entry: becomes, left: None }).read() {
                    Reading::Record(record) => {
                        Some(self.policy.lifetime(&record)? + shown.meta().stale.unwrap_or_default())
                    }
                    Reading::Stale(..) | Reading::NotFound | Reading::Unreadable(_) => return None,
                }
            }
        };
        Some(Decision::Apply { changes, ttl })
    }
}

/// The changes by field; of several changes of one field the last.
fn last_of_each_field<T>(changes: Vec<Change<T>>) -> Result<Changes, FieldError> {
    let mut last = Changes::new();
    for Change { field, value, .. } in changes {
        last.retain(|(other, _)| *other != field);
        last.push((field, value?));
    }
    Ok(last)
}

/// The fields that a modification has changed. Both sides have all fields, in declaration order.
fn differences(before: Result<Changes, FieldError>, after: Result<Changes, FieldError>) -> Result<Changes, FieldError> {
    let pairs = before?.into_iter().zip(after?);
    Ok(pairs.filter(|(before, after)| before != after).map(|(_, after)| after).collect())
}
