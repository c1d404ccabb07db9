//! Pending invalidations: writes that are committed in the primary and have not reached the cache.
//!
//! A write that failed, or whose future was dropped, is remembered by its key until it has been applied: as an
//! invalidation, never as the update that it may have been. Meanwhile this process reads around the cache for the key. The
//! memory is bounded: beyond `limit` keys all keys of a type count as pending, and are deleted by their prefix later. The same
//! applies to a deletion of all entries of a type that failed.
//!
//! The invariant: a key is forgotten only by an invalidation that was sent after the key's last failure. So failures are
//! numbered. A background task retries; what is still pending when the process ends is lost.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::call::CallOptions;
use super::redis::Restarted;
use super::{Backend, Forbidden, Inner};
use crate::backoff::Backoff;
use crate::error::Error;
use crate::metrics;
use crate::record::Key;

/// The shortest pause between two attempts to apply what is pending.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

#[derive(Default)]
pub(super) struct Pending {
    /// How many keys and types are pending. Every call reads it, so that none takes the lock while nothing is.
    waiting: AtomicUsize,
    /// The number of the last failure.
    failures: AtomicU64,
    state: Mutex<State>,
    /// Ends the pause before the next attempt.
    pub(super) try_now: Notify,
}

/// Pending keys and types, each with the number of its last failure.
#[derive(Default)]
struct State {
    keys: HashMap<Key, u64>,
    /// By the prefix of the type's keys.
    types: HashMap<String, u64>,
    /// Those types that are pending only because another server has taken over.
    replayed: BTreeSet<String>,
    /// Servers that have started again, each with the prefixes of the types that are not swept yet.
    restarted: Vec<(Restarted, BTreeSet<String>)>,
}

impl State {
    fn waiting(&self) -> usize {
        let restarted: usize = self.restarted.iter().map(|(_, types)| types.len()).sum();
        self.keys.len() + self.types.len() + restarted
    }
}

impl Pending {
    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        let state = self.state.lock();
        state.keys.contains_key(key) || state.types.contains_key(key.prefix())
    }

    /// The servers that have started again and may have old entries of this type.
    pub(super) fn unswept(&self, prefix: &str) -> Vec<Restarted> {
        let state = self.state.lock();
        let unswept = state.restarted.iter().filter(|(_, types)| types.contains(prefix));
        unswept.map(|(server, _)| server.clone()).collect()
    }

    /// All servers that have started again, with the types that are not swept yet.
    pub(super) fn restarted(&self) -> Vec<(Restarted, BTreeSet<String>)> {
        self.state.lock().restarted.clone()
    }

    fn is_replayed(&self, prefix: &str) -> bool {
        self.state.lock().replayed.contains(prefix)
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.waiting() > 0
    }

    /// If `limit` keys are pending already, all keys of the type are from now on.
    pub(super) fn remember(&self, key: &Key, limit: usize) {
        let mut state = self.state.lock();
        let number = self.next_failure();
        if let Some(last) = state.types.get_mut(key.prefix()) {
            *last = number;
        } else if state.keys.len() < limit || state.keys.contains_key(key) {
            let is_new = state.keys.insert(key.clone(), number).is_none();
            self.count(&state, key.prefix(), 0, usize::from(is_new));
        } else {
            let prefix = key.prefix();
            self.add_type(&mut state, prefix, number);
            drop(state);
            tracing::warn!(prefix, "too many invalidations wait: all keys of the type are read around the cache");
        }
    }

    /// From now on all keys of the type are pending.
    fn remember_type(&self, prefix: &str) {
        let mut state = self.state.lock();
        let number = self.next_failure();
        state.replayed.remove(prefix);
        self.add_type(&mut state, prefix, number);
    }

    /// The same, after writes that have not failed.
    pub(super) fn replay_type(&self, prefix: &str) {
        let mut state = self.state.lock();
        let number = self.next_failure();
        let has_failed = state.types.contains_key(prefix) || state.keys.keys().any(|key| key.prefix() == prefix);
        if !has_failed {
            state.replayed.insert(prefix.to_owned());
        }
        self.add_type(&mut state, prefix, number);
    }

    /// From now on all keys of these types are pending, until the server is swept.
    pub(super) fn remember_restart(&self, server: &Restarted, types: BTreeSet<String>) {
        let mut state = self.state.lock();
        // What is left of an earlier restart is swept with the rest.
        let earlier = state.restarted.extract_if(.., |(other, _)| other.is_at(server));
        earlier.flat_map(|(_, types)| types).for_each(|prefix| metrics::pending(&prefix, 1, 0));
        types.iter().for_each(|prefix| metrics::pending(prefix, 0, 1));
        if !types.is_empty() {
            state.restarted.push((server.clone(), types));
        }
        self.waiting.store(state.waiting(), Ordering::Release);
    }

    /// Forgets a type that was swept.
    pub(super) fn swept(&self, server: &Restarted, prefix: &str) {
        let mut state = self.state.lock();
        let unswept = state.restarted.iter_mut().find(|(other, _)| other == server);
        if unswept.is_some_and(|(_, types)| types.remove(prefix)) {
            state.restarted.retain(|(_, types)| !types.is_empty());
            self.count(&state, prefix, 1, 0);
        }
    }

    /// In place of those of its keys that are pending by themselves.
    fn add_type(&self, state: &mut State, prefix: &str, number: u64) {
        let before = state.keys.len();
        state.keys.retain(|key, _| key.prefix() != prefix);
        let fewer = before - state.keys.len();
        let is_new = state.types.insert(prefix.to_owned(), number).is_none();
        self.count(state, prefix, fewer, usize::from(is_new));
    }

    /// Called under the lock of the state that gets the number.
    fn next_failure(&self) -> u64 {
        self.failures.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The number of the last failure. An invalidation that is sent from now on covers all failures up to it.
    fn last_failure(&self) -> u64 {
        self.failures.load(Ordering::SeqCst)
    }

    /// Forgets a key, unless it has failed again since.
    fn applied(&self, key: &Key, sent_after: u64) {
        if self.waiting() == 0 {
            return;
        }
        let mut state = self.state.lock();
        if state.keys.get(key).is_some_and(|number| *number <= sent_after) {
            state.keys.remove(key);
            self.count(&state, key.prefix(), 1, 0);
        }
    }

    /// Forgets a type and its keys, but for those that have failed again since.
    fn applied_to_all(&self, prefix: &str, sent_after: u64) {
        if self.waiting() == 0 {
            return;
        }
        let mut state = self.state.lock();
        let before = state.keys.len() + state.types.len();
        state.keys.retain(|key, number| key.prefix() != prefix || *number > sent_after);
        state.types.retain(|other, number| other != prefix || *number > sent_after);
        let fewer = before - state.keys.len() - state.types.len();
        if !state.types.contains_key(prefix) {
            state.replayed.remove(prefix);
        }
        self.count(&state, prefix, fewer, 0);
    }

    /// Updates the count and the gauge after a change of one type: `gone` were removed, and `come` were added.
    fn count(&self, state: &State, prefix: &str, gone: usize, come: usize) {
        self.waiting.store(state.waiting(), Ordering::Release);
        metrics::pending(prefix, gone, come);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let unswept = state.restarted.iter().flat_map(|(_, types)| types);
        let types = state.types.keys().chain(unswept).map(String::as_str);
        let prefixes = state.keys.keys().map(Key::prefix).chain(types);
        prefixes.for_each(|prefix| metrics::pending(prefix, 1, 0));
    }
}

/// A write under way. Unless it succeeds, its key is pending once this is dropped, however that comes about.
pub(super) struct Write<'a> {
    backend: &'a Backend,
    pub(super) key: Key,
    sent_after: u64,
    failed: bool,
}

impl<'a> Write<'a> {
    pub(super) fn new(backend: &'a Backend, key: Key) -> Self {
        backend.note_write(&key);
        Self { backend, key, sent_after: backend.inner.pending.last_failure(), failed: true }
    }

    /// The write was applied, or nothing was written at all.
    pub(super) fn succeed(&mut self) {
        self.failed = false;
    }

    /// The entry and its lease are gone, which covers earlier failures too.
    pub(super) fn invalidated(mut self) {
        self.backend.inner.pending.applied(&self.key, self.sent_after);
        self.succeed();
    }
}

impl Drop for Write<'_> {
    fn drop(&mut self) {
        if self.failed {
            let Inner { pending, settings, .. } = &*self.backend.inner;
            pending.remember(&self.key, settings.max_pending_invalidations);
            retry_in_background(self.backend);
        } else {
            // Once more, with the time of its end: it may have waited for its turn.
            self.backend.note_write(&self.key);
        }
        // Near caches come last: a read that starts now either finds the key pending or the new entry. Dropped before, their
        // records could be replaced by what such a read has found of the old one.
        self.backend.written(&self.key);
    }
}

/// A deletion of all entries of a type that is under way. Unless it succeeds or is cancelled, the whole type is pending once this
/// is dropped.
pub(super) struct Sweep<'a> {
    backend: &'a Backend,
    prefix: &'a str,
    sent_after: u64,
    failed: bool,
}

impl<'a> Sweep<'a> {
    pub(super) fn new(backend: &'a Backend, prefix: &'a str) -> Self {
        backend.note_sweep(prefix);
        Self { backend, prefix, sent_after: backend.inner.pending.last_failure(), failed: true }
    }

    /// The entries and their leases are gone, which covers earlier failures too.
    pub(super) fn succeed(mut self) {
        self.backend.inner.pending.applied_to_all(self.prefix, self.sent_after);
        self.failed = false;
    }

    /// No entry was deleted, and none will be. What was pending before still is.
    pub(super) fn cancel(mut self) {
        self.failed = false;
    }
}

impl Drop for Sweep<'_> {
    fn drop(&mut self) {
        if self.failed {
            self.backend.inner.pending.remember_type(self.prefix);
            retry_in_background(self.backend);
        }
        // Near caches come last, for the same reason as after a `Write`.
        self.backend.all_written(self.prefix);
    }
}

impl Backend {
    /// The pending keys with this prefix, and whether all keys with it are pending.
    pub(crate) fn pending(&self, prefix: &str) -> (Vec<String>, bool) {
        let state = self.inner.pending.state.lock();
        let keys = state.keys.keys().filter(|key| key.prefix() == prefix).map(Key::to_string).collect();
        let is_swept = state.restarted.iter().any(|(_, types)| types.contains(prefix));
        (keys, is_swept || state.types.contains_key(prefix))
    }
}

/// Waits until nothing is pending, within `limit`.
pub(super) async fn apply_within(backend: &Backend, limit: Duration) -> Result<(), Error> {
    let pending = &backend.inner.pending;
    let apply = async {
        while pending.waiting() > 0 && !apply(backend).await {
            sleep(SHORTEST_PAUSE).await;
        }
    };
    timeout(limit, apply).await.map_err(|_elapsed| {
        let action = format!("applying {} pending invalidations at {backend}", pending.waiting());
        let advice = "the old entries live until their TTL ends, or until they are invalidated again";
        Error::Timeout { action, limit, advice }
    })
}

pub(super) fn retry_in_background(backend: &Backend) {
    let inner = &backend.inner;
    inner.retry.ensure(|| retry(Arc::downgrade(inner), inner.pending.clone()));
}

/// Retries until nothing is pending, or the backend is gone.
async fn retry(inner: Weak<Inner>, pending: Arc<Pending>) {
    let mut backoff = Backoff::new(SHORTEST_PAUSE, Duration::from_secs(1));
    while let Some(inner) = inner.upgrade() {
        let backend = Backend { inner };
        if apply(&backend).await && backend.inner.retry.finish(|| pending.waiting() == 0) {
            tracing::info!("all pending invalidations have been applied");
            return;
        }
        // Not kept during the pause: the backend may be dropped then.
        drop(backend);
        tokio::select! {
            () = sleep(backoff.next()) => {}
            () = pending.try_now.notified() => {}
        }
    }
}

/// Tries once to apply all that is pending. Returns whether nothing is pending any more.
async fn apply(backend: &Backend) -> bool {
    const AT_A_TIME: usize = 32;
    let pending = &backend.inner.pending;
    // Read before anything is sent: a later failure is not covered.
    let sent_after = pending.last_failure();
    let (keys, types): (Vec<_>, Vec<_>) = {
        let state = pending.state.lock();
        (state.keys.keys().cloned().collect(), state.types.keys().cloned().collect())
    };
    let invalidations = futures_util::stream::iter(keys).map(|key| async move {
        backend.note_write(&key);
        let removed = backend.remove(&key, CallOptions { quiet: true, ..CallOptions::for_write(backend, &key) }).await;
        backend.written(&key);
        removed.map(|_was_there| pending.applied(&key, sent_after)).err()
    });
    let errors = invalidations.buffer_unordered(AT_A_TIME);
    let mut last_error = errors.fold(None, async |last, error| error.or(last)).await;
    for prefix in types {
        backend.note_sweep(&prefix);
        let deleted = backend.delete_prefix(&prefix).await;
        backend.all_written(&prefix);
        match deleted {
            Ok(_deleted) => pending.applied_to_all(&prefix, sent_after),
            Err(error) if is_forbidden(&error) && pending.is_replayed(&prefix) => {
                warn_unswept(&prefix, &error);
                pending.applied_to_all(&prefix, sent_after);
            }
            Err(error) => last_error = Some(error),
        }
    }
    let waiting = pending.waiting();
    if let Some(error) = last_error {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        backend.repeats().warn(format!("pending {cause:?}"), |times| {
            tracing::warn!(
                waiting,
                cause,
                times,
                "failed writes could not be made up for yet: their records are not cached"
            );
        });
    }
    waiting == 0
}

pub(super) fn is_forbidden(error: &Error) -> bool {
    error.downcast_ref::<Forbidden>().is_some()
}

/// To go on reading around the cache would take the type out of it for good, though no write has failed.
pub(super) fn warn_unswept(prefix: &str, error: &Error) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::warn!(prefix, cause, "what a new server may have can't be swept: entries may be old until their TTL");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{KeySpace, Schema};

    #[test]
    fn only_what_was_sent_after_a_failure_makes_up_for_it() {
        // Beyond the limit, the type waits as a whole.
        for limit in [10, 0] {
            let (pending, key) = (Pending::default(), KeySpace::new("", None, &Schema::new("thing")).key(&1).unwrap());
            let apply = |sent_after| {
                pending.applied(&key, sent_after);
                pending.applied_to_all(key.prefix(), sent_after);
            };
            pending.remember(&key, limit);
            let sent_after = pending.last_failure();
            pending.remember(&key, limit);
            apply(sent_after);
            assert!(pending.contains(&key), "it failed again in between");
            apply(pending.last_failure());
            assert!(!pending.contains(&key) && pending.waiting() == 0);
        }
    }

    #[test]
    fn a_sweep_makes_up_for_earlier_failures_of_its_type_alone() {
        let key = |entity, id: u64| KeySpace::new("", None, &Schema::new(entity)).key(&id).unwrap();
        let (pending, thing, other) = (Pending::default(), key("thing", 1), key("other", 1));
        pending.remember(&thing, 10);
        pending.remember(&other, 10);
        let sent_after = pending.last_failure();
        let late = key("thing", 2);
        pending.remember(&late, 10);
        pending.applied_to_all(thing.prefix(), sent_after);
        assert!(!pending.contains(&thing) && pending.contains(&late) && pending.contains(&other));
        pending.remember_type(thing.prefix());
        assert!(pending.contains(&thing) && pending.waiting() == 2, "the type is in place of its keys");
        pending.applied_to_all(thing.prefix(), pending.last_failure());
        assert!(!pending.contains(&thing) && pending.contains(&other) && pending.waiting() == 1);
    }
}
