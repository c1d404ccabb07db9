//! Pending invalidations: writes that the primary has, and that the cache could not be told.
//!
//! A write that failed, or whose future was dropped, is remembered by its key until it has been applied: as an
//! invalidation, never as the update that it may have been. Meanwhile this process reads around the cache for the key. The
//! memory is bounded: beyond `limit` keys a whole type waits, and is swept out of the cache when that answers again.
//!
//! Failures are numbered, since only what was sent after a failure makes up for it. What waits is tried again in the
//! background, and dies with the process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::guard::Call;
use super::{Backend, Shared};
use crate::error::Error;
use crate::key::Key;
use crate::meter;
use crate::pause::Backoff;

/// Between one attempt to apply what waits and the next.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Pending {
    limit: usize,
    /// How many keys and types wait. Each call reads it, so that none takes the lock while nothing waits.
    waiting: AtomicUsize,
    /// The number of the last failure.
    failures: AtomicU64,
    state: Mutex<State>,
    /// Ends the pause before the next attempt.
    pub(super) try_now: Notify,
}

/// What waits, each with the number of its last failure.
#[derive(Default)]
struct State {
    keys: HashMap<Key, u64>,
    /// By the prefix of the type's keys.
    types: HashMap<String, u64>,
    /// Whether a task tries again, or is to be started.
    retried: bool,
}

impl Pending {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            waiting: AtomicUsize::new(0),
            failures: AtomicU64::new(0),
            state: Mutex::default(),
            try_now: Notify::new(),
        }
    }

    /// How many keys and types wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    fn holds(&self, key: &Key) -> bool {
        let state = self.state();
        state.keys.contains_key(key) || state.types.contains_key(key.prefix())
    }

    fn remember(&self, key: &Key) {
        let mut state = self.state();
        let number = self.failures.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(last) = state.types.get_mut(key.prefix()) {
            *last = number;
        } else if state.keys.len() < self.limit || state.keys.contains_key(key) {
            let is_new = state.keys.insert(key.clone(), number).is_none();
            self.count(&state, key.prefix(), 0, usize::from(is_new));
        } else {
            let (prefix, before) = (key.prefix(), state.keys.len());
            state.keys.retain(|other, _| other.prefix() != prefix);
            let fewer = before - state.keys.len();
            state.types.insert(prefix.to_owned(), number);
            self.count(&state, prefix, fewer, 1);
            drop(state);
            tracing::warn!(prefix, "too many invalidations wait: all keys of the type are read around the cache");
        }
    }

    /// The number of the last failure: what is sent from now on makes up for all until then.
    fn last_failure(&self) -> u64 {
        self.failures.load(Ordering::SeqCst)
    }

    fn applied(&self, key: &Key, sent_after: u64) {
        if self.waiting() == 0 {
            return;
        }
        let mut state = self.state();
        if state.keys.get(key).is_some_and(|number| *number <= sent_after) {
            state.keys.remove(key);
            self.count(&state, key.prefix(), 1, 0);
        }
    }

    fn swept(&self, prefix: &str, sent_after: u64) {
        let mut state = self.state();
        if state.types.get(prefix).is_some_and(|number| *number <= sent_after) {
            state.types.remove(prefix);
            self.count(&state, prefix, 1, 0);
        }
    }

    /// Ends the task that tries again, unless something waits.
    fn has_ended(&self) -> bool {
        let mut state = self.state();
        state.retried = !state.keys.is_empty() || !state.types.is_empty();
        !state.retried
    }

    /// Counts anew after a change: of one type, so many have gone and so many have come.
    fn count(&self, state: &State, prefix: &str, gone: usize, come: usize) {
        self.waiting.store(state.keys.len() + state.types.len(), Ordering::Release);
        meter::pending(prefix, gone, come);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let prefixes = state.keys.keys().map(Key::prefix).chain(state.types.keys().map(String::as_str));
        prefixes.for_each(|prefix| meter::pending(prefix, 1, 0));
    }
}

/// A write on its way: unless it ends well, it is remembered. However it ends, near caches keep nothing from before it.
pub(super) struct Write<'a> {
    backend: &'a Backend,
    pub(super) key: Key,
    sent_after: u64,
    failed: bool,
}

impl<'a> Write<'a> {
    pub(super) fn new(backend: &'a Backend, key: Key) -> Self {
        Self { backend, key, sent_after: backend.shared.pending.last_failure(), failed: true }
    }

    /// There is nothing to remember.
    pub(super) fn done(mut self) {
        self.failed = false;
    }

    /// The entry and its lease are gone, so that earlier failures are made up for.
    pub(super) fn invalidated(self) {
        self.backend.shared.pending.applied(&self.key, self.sent_after);
        self.done();
    }
}

impl Drop for Write<'_> {
    fn drop(&mut self) {
        if self.failed {
            self.backend.shared.pending.remember(&self.key);
            self.backend.retry_in_background();
        }
        // Only now: until then, what was written over could be read again.
        self.backend.written(&self.key);
    }
}

impl Backend {
    /// Whether a write of this key has not been applied yet.
    pub(crate) fn is_pending(&self, key: &Key) -> bool {
        let pending = &self.shared.pending;
        if pending.waiting() == 0 {
            return false;
        }
        // The runtime of the task may have shut down, or not be driven.
        self.retry_in_background();
        pending.holds(key)
    }

    /// The keys with this prefix that wait, and whether all of them do.
    pub(crate) fn pending(&self, prefix: &str) -> (Vec<String>, bool) {
        let state = self.shared.pending.state();
        let keys = state.keys.keys().filter(|key| key.prefix() == prefix).map(Key::to_string).collect();
        (keys, state.types.contains_key(prefix))
    }

    /// Waits until the cache has been told of all writes that failed, for at most the builder's `close_timeout`: call it
    /// before the process ends, since what waits dies with it. The backend can be used all the same, also afterwards; its
    /// connections end with its last clone.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] when some still wait: their old entries live until their TTL ends.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn close(&self) -> Result<(), Error> {
        let (pending, limit) = (&self.shared.pending, self.shared.settings.close_timeout);
        let apply = async {
            while pending.waiting() > 0 && !self.apply_pending().await {
                tokio::time::sleep(SHORTEST_PAUSE).await;
            }
        };
        tokio::time::timeout(limit, apply).await.map_err(|_elapsed| {
            let action = format!("applying {} pending invalidations at {}", pending.waiting(), self.shared.address);
            let advice = "the old entries live until their TTL ends, or until they are invalidated again";
            Error::Timeout { action, limit, advice }
        })
    }

    fn retry_in_background(&self) {
        let shared = &self.shared;
        let task = || retry(Arc::downgrade(shared), shared.pending.clone());
        let is_retried = std::mem::replace(&mut shared.pending.state().retried, true);
        if is_retried { shared.retry.ensure(task) } else { shared.retry.replace(task()) }
    }

    /// Tries once to apply all that waits; returns whether nothing waits any more.
    async fn apply_pending(&self) -> bool {
        const AT_A_TIME: usize = 32;
        let pending = &self.shared.pending;
        let sent_after = pending.last_failure();
        let (keys, types): (Vec<_>, Vec<_>) = {
            let state = pending.state();
            (state.keys.keys().cloned().collect(), state.types.keys().cloned().collect())
        };
        let invalidations = futures_util::stream::iter(keys).map(|key| async move {
            let removed = self.remove(&key, Call { quiet: true, ..self.write_call(&key) }).await;
            self.written(&key);
            removed.map(|_was_there| pending.applied(&key, sent_after)).err()
        });
        let mut last_error = None;
        let mut errors = invalidations.buffer_unordered(AT_A_TIME);
        while let Some(error) = errors.next().await {
            last_error = error.or(last_error);
        }
        for prefix in types {
            let swept = self.sweep(&prefix).await;
            self.all_written(&prefix);
            match swept {
                Ok(()) => pending.swept(&prefix, sent_after),
                Err(error) => last_error = Some(error),
            }
        }
        let waiting = pending.waiting();
        if let Some(error) = last_error {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            self.repeats().warn(format!("pending {cause:?}"), |times| {
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
}

/// Tries until nothing waits, or the backend is gone.
async fn retry(shared: Weak<Shared>, pending: Arc<Pending>) {
    let mut pauses = Backoff::new(SHORTEST_PAUSE, Duration::from_secs(1));
    while let Some(shared) = shared.upgrade() {
        if (Backend { shared }).apply_pending().await && pending.has_ended() {
            tracing::info!("all pending invalidations have been applied");
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pauses.next()) => {}
            () = pending.try_now.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cacheable::Schema;
    use crate::key::KeySpace;

    fn key(entity: &'static str, id: u64) -> Key {
        KeySpace::new(None, &Schema::new(entity)).key(&id).unwrap()
    }

    #[test]
    fn only_what_was_sent_after_a_failure_makes_up_for_it() {
        let (pending, key) = (Pending::new(10), key("thing", 1));
        pending.remember(&key);
        let sent_after = pending.last_failure();
        pending.remember(&key);
        pending.applied(&key, sent_after);
        assert!(pending.holds(&key), "it failed again in between");
        pending.applied(&key, pending.last_failure());
        assert!(!pending.holds(&key) && pending.waiting() == 0);
    }

    #[test]
    fn beyond_its_bound_a_type_waits_as_a_whole() {
        let pending = Pending::new(2);
        [key("thing", 1), key("thing", 2), key("other", 3)].iter().for_each(|key| pending.remember(key));
        assert!(pending.holds(&key("other", 4)) && !pending.holds(&key("thing", 4)));
        assert!(pending.holds(&key("thing", 1)), "the keys of the others stay");
        pending.remember(&key("thing", 3));
        assert!(pending.holds(&key("thing", 4)));
        assert_eq!(pending.waiting(), 2, "no keys beside their type");

        let sent_after = pending.last_failure();
        pending.remember(&key("other", 5));
        pending.swept(key("other", 0).prefix(), sent_after);
        pending.swept(key("thing", 0).prefix(), sent_after);
        assert!(pending.holds(&key("other", 6)), "one failed again in between");
        assert!(!pending.holds(&key("thing", 1)));
    }
}
