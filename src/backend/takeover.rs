//! Servers whose place is taken with an older state: by a replica that is promoted, or by the same server after a restart.
//!
//! Replication and snapshots lag, so what a server has confirmed may be missing at the one that follows, and an entry or a lease
//! that it has deleted may be there again. Each process remembers the keys that it has written in the last `replay_window`. When
//! a server's place is taken they become [pending](super::pending) once more, before anything is sent to the new one: this process
//! reads around the cache for them until it has invalidated them there. If the server itself has started again with data of its
//! own, nobody knows how old they are: then all types are pending, until one process has swept them.
//!
//! An answer may have been asked for before. So takeovers are counted: whoever reads an entry takes the number first, and doesn't
//! use the answer if the number is another one afterwards and the key is one of those.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::sleep;

use super::call::note_answer;
use super::redis::{LastSeen, Restarted, TakenOver};
use super::{Backend, Inner, pending};
use crate::backoff::Backoff;
use crate::error::Error;
use crate::proof::Guard;
use crate::record::Key;

/// How often the task looks whether a connection has ended, while there are writes to remember.
const LOOK: Duration = Duration::from_millis(100);
/// How often in a window the writes that have left it are forgotten.
const PRUNED_IN_WINDOW: u32 = 8;
/// The longest pause between two attempts to connect again.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The writes of the last `replay_window`, and the number of takeovers.
#[derive(Default)]
pub(super) struct Takeovers {
    count: AtomicU64,
    written: Mutex<Written>,
    /// The prefixes of all types that this backend has caches for.
    types: Mutex<BTreeSet<String>>,
}

impl Takeovers {
    pub(super) fn types(&self) -> BTreeSet<String> {
        self.types.lock().clone()
    }

    /// Counts a takeover by a server that has started again.
    pub(super) fn count_restart(&self) {
        // Under the lock, so that whoever sees the new count sees this too.
        let mut written = self.written.lock();
        written.last_restart = self.count.fetch_add(1, Ordering::AcqRel) + 1;
    }
}

/// Keys and types, each with the time of its last write.
#[derive(Default)]
struct Written {
    keys: HashMap<Key, Instant>,
    types: HashMap<String, Instant>,
    /// The number of the last takeover by a server that has started again.
    last_restart: u64,
}

impl Written {
    /// Forgets the writes that were older than the window when their server was last known to answer. What was written right
    /// before an outage is kept, however long that takes.
    fn prune(&mut self, seen: &LastSeen<'_>, window: Duration) {
        let is_recent = |written: Instant, seen: Option<Instant>| {
            seen.is_none_or(|seen| seen.saturating_duration_since(written) <= window)
        };
        self.keys.retain(|key, written| is_recent(*written, seen.of(key)));
        self.types.retain(|_, written| is_recent(*written, seen.latest()));
    }

    fn note_type(&mut self, prefix: &str, now: Instant) {
        self.keys.retain(|key, _| key.prefix() != prefix);
        self.types.insert(prefix.to_owned(), now);
    }
}

/// The backends whose servers these are: all that share the connections.
#[derive(Default)]
pub(super) struct Backends(Mutex<Vec<Weak<Inner>>>);

impl Backends {
    fn add(&self, inner: &Arc<Inner>) {
        let mut backends = self.0.lock();
        backends.retain(|backend| backend.strong_count() > 0);
        backends.push(Arc::downgrade(inner));
    }

    /// Must be called before anything is sent to the server that has taken over. `last_seen` is when the server before it was
    /// last known to answer, if it is known.
    pub(super) fn taken_over(&self, last_seen: Option<Instant>, what: TakenOver<'_>) {
        for backend in self.all() {
            backend.replay(last_seen, what);
        }
    }

    /// A connection has ended. Must not be called under a lock: the last handle on a backend may be dropped here.
    pub(super) fn lost_connection(&self) {
        self.all().iter().for_each(Backend::watch);
    }

    /// Must be called before anything is sent to a server that has started again.
    pub(super) fn restarted(&self, server: &Restarted) {
        for backend in self.all() {
            backend.distrust(server);
        }
    }

    fn all(&self) -> Vec<Backend> {
        self.0.lock().iter().filter_map(Weak::upgrade).map(|inner| Backend { inner }).collect()
    }
}

/// The number of takeovers before a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TakeoverCount(u64);

impl Backend {
    /// Hears of takeovers from now on.
    pub(super) fn watched(self) -> Self {
        if let Some(redis) = self.inner.store.redis() {
            redis.topology.backends.add(&self.inner);
        }
        self
    }

    /// Notes that caches for a type are built over this backend.
    pub(crate) fn add_types<'a>(&self, prefixes: impl Iterator<Item = &'a str>) {
        self.inner.takeovers.types.lock().extend(prefixes.map(str::to_owned));
    }

    /// Remembers a write, before it is sent: a takeover that comes right after the reply must find it.
    pub(super) fn note_write(&self, key: &Key) {
        let limit = self.inner.settings.max_pending_invalidations;
        self.note(|written, now| {
            if written.keys.len() < limit || written.keys.contains_key(key) {
                written.keys.insert(key.clone(), now);
            } else {
                written.note_type(key.prefix(), now);
            }
        });
    }

    /// Remembers a write of a whole type, before it is sent.
    pub(super) fn note_sweep(&self, prefix: &str) {
        self.note(|written, now| written.note_type(prefix, now));
    }

    fn note(&self, write: impl FnOnce(&mut Written, Instant)) {
        let Inner { store, settings, .. } = &*self.inner;
        if store.redis().is_none() || settings.replay_window.is_zero() || !self.enforces(Guard::Replay) {
            return;
        }
        write(&mut self.inner.takeovers.written.lock(), Instant::now());
        self.watch();
    }

    fn watch(&self) {
        self.inner.watch.ensure(|| watch(Arc::downgrade(&self.inner)));
    }

    /// Taken before a step that returns an entry, and before the key is looked up among the pending ones.
    pub(crate) fn takeovers(&self) -> TakeoverCount {
        TakeoverCount(self.inner.takeovers.count.load(Ordering::Acquire))
    }

    /// Whether the answer to a step may be older than a write of this process, because another server has taken over since.
    pub(super) fn is_doubtful(&self, key: &Key, before: TakeoverCount) -> bool {
        if self.takeovers() == before || !self.enforces(Guard::AnswerCheck) {
            return false;
        }
        let written = self.inner.takeovers.written.lock();
        written.last_restart > before.0
            || written.keys.contains_key(key)
            || written.types.contains_key(key.prefix())
            || self.inner.pending.contains(key)
    }

    /// Taken before a step that returns an entry or a lease of this key.
    pub(super) fn takeovers_unless_pending(&self, key: &Key) -> Result<TakeoverCount, Error> {
        let before = self.takeovers();
        if self.is_pending(key) { Err(self.pending_error(key)) } else { Ok(before) }
    }

    /// Fails if the answer to a step may be older than a write of this process.
    pub(super) fn check_answer<R>(
        &self,
        key: &Key,
        before: TakeoverCount,
        answer: Result<R, Error>,
    ) -> Result<R, Error> {
        if answer.is_ok() && self.is_doubtful(key, before) { Err(self.pending_error(key)) } else { answer }
    }

    /// Makes what was written lately pending again.
    fn replay(&self, last_seen: Option<Instant>, what: TakenOver<'_>) {
        let Inner { store, takeovers, pending, settings, .. } = &*self.inner;
        let Some(redis) = store.redis() else { return };
        let is_affected = redis.topology.is_affected_by(what);
        let (keys, types): (Vec<_>, Vec<_>) = {
            let written = takeovers.written.lock();
            let is_recent = |when: &Instant| {
                last_seen.is_none_or(|seen| seen.saturating_duration_since(*when) <= settings.replay_window)
            };
            let keys = written.keys.iter().filter(|(key, when)| is_recent(when) && is_affected(key));
            let types = written.types.iter().filter(|(_, when)| is_recent(when));
            (keys.map(|(key, _)| key.clone()).collect(), types.map(|(prefix, _)| prefix.clone()).collect())
        };
        for key in &keys {
            pending.remember(key, settings.max_pending_invalidations);
        }
        for prefix in &types {
            pending.replay_type(prefix);
        }
        takeovers.count.fetch_add(1, Ordering::AcqRel);
        if !keys.is_empty() || !types.is_empty() {
            tracing::warn!(
                backend = %self,
                keys = keys.len(),
                types = types.len(),
                "another server has taken over: what this process has written lately is invalidated again"
            );
        }
        self.apply_pending();
    }

    pub(super) fn apply_pending(&self) {
        // The new server has answered the greeting.
        note_answer(self, &self.inner.breaker);
        if self.inner.pending.is_waiting() {
            self.sweep_in_background();
            pending::retry_in_background(self);
            self.inner.pending.try_now.notify_one();
        }
    }
}

/// Connects again when a connection has ended, although this process may have nothing to send: if another server has taken over, it
/// must get the writes of this process, and if a server has started again, somebody must sweep it.
async fn watch(inner: Weak<Inner>) {
    let (mut settled, mut pauses) = (None, Backoff::new(LOOK, LONGEST_PAUSE));
    let mut pruned = Instant::now();
    loop {
        sleep(pauses.next()).await;
        // Not kept while connecting: the backend may be dropped then.
        let redis = {
            let Some(inner) = inner.upgrade() else { return };
            let Some(redis) = inner.store.redis() else { return };
            let window = inner.settings.replay_window;
            if pruned.elapsed() >= window / PRUNED_IN_WINDOW {
                // Before the lock of the writes, which writers take too.
                let seen = redis.topology.last_seen();
                inner.takeovers.written.lock().prune(&seen, window);
                pruned = Instant::now();
            }
            let is_settled = settled == Some(redis.changes().load(Ordering::Acquire));
            let has_nothing_to_do = inner.watch.finish(|| {
                let written = inner.takeovers.written.lock();
                is_settled && written.keys.is_empty() && written.types.is_empty()
            });
            if has_nothing_to_do {
                return;
            }
            redis.clone()
        };
        let changes = redis.changes().load(Ordering::Acquire);
        if settled != Some(changes) || redis.topology.is_silent() {
            settled = redis.topology.settle().await.is_ok().then_some(changes);
        }
        if settled.is_some() {
            pauses.reset();
        }
    }
}
