//! Loads within loads: a loader that gets records itself. Such a load waits for others, which may wait for it.
//!
//! Each load is known to the task that runs its loader. A get in that task is made *in* the load, and the load waits for the
//! flight of that get. Before it waits, it looks whether that flight waits for it already, which would last until
//! `load_timeout`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::Error;
use crate::record::Key;

tokio::task_local! {
    /// The load whose loader this task runs.
    static CURRENT: Arc<Load>;
}

/// Held while it is decided whether a load may wait for another, so that of two that would wait for each other one sees it.
static WAITING: Mutex<()> = Mutex::new(());

/// A load under way, or about to be.
pub(crate) struct Load {
    /// `None` for the call of a batch loader.
    key: Option<Key>,
    /// The address of the cache, which has turns of its own.
    cache: usize,
    /// The address of the backend: in two backends the same keys are different records.
    backend: usize,
    /// The load that this one was begun in.
    outer: Option<Arc<Load>>,
    /// Whether it holds one of its cache's turns to load around the cache.
    holds_turn: AtomicBool,
    /// Notified when a load that holds a turn waits for this one.
    turn_lent: Notify,
    /// Whether a caller needs its result: one that has no stale record to serve.
    is_needed: AtomicBool,
    waits_for: Mutex<Vec<Arc<Load>>>,
    /// The stale record that the leader's own read has found, for loads without [`Guard::OwnRead`](crate::proof::Guard) or
    /// `GrantedRecord`.
    #[cfg(feature = "__proof")]
    pub(crate) seen_by_leader: std::sync::OnceLock<crate::record::Record>,
}

/// A wait of one load for another, until this is dropped.
pub(crate) struct Waiting {
    load: Arc<Load>,
    other: Arc<Load>,
}

impl Load {
    /// A load that begins in the current one, if there is one. `cache` and `backend` are addresses.
    pub(crate) fn begin(cache: usize, backend: usize, key: Option<Key>) -> Arc<Self> {
        Arc::new(Self {
            key,
            cache,
            backend,
            outer: CURRENT.try_with(Arc::clone).ok(),
            holds_turn: AtomicBool::new(false),
            turn_lent: Notify::new(),
            is_needed: AtomicBool::new(false),
            waits_for: Mutex::default(),
            #[cfg(feature = "__proof")]
            seen_by_leader: std::sync::OnceLock::new(),
        })
    }

    /// Runs a loader, so that gets in its task are made in this load.
    pub(crate) async fn run<R>(self: Arc<Self>, loader: impl Future<Output = R>) -> R {
        CURRENT.scope(self, loader).await
    }

    /// Waits until a load that holds a turn to load around the same cache waits for this one, which then shares that turn. Else
    /// loads that have all turns could wait for one that has none.
    pub(crate) async fn turn_lent(&self) {
        self.turn_lent.notified().await;
    }

    /// Whether this load, or one that it was begun in, holds a turn to load around the cache.
    fn has_turn(&self, cache: usize) -> bool {
        let holds_it = self.cache == cache && self.holds_turn.load(Ordering::Relaxed);
        holds_it || self.outer.as_ref().is_some_and(|outer| outer.has_turn(cache))
    }

    pub(crate) fn need(&self) {
        self.is_needed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_needed(&self) -> bool {
        self.is_needed.load(Ordering::SeqCst)
    }

    pub(crate) fn hold_turn(&self) {
        self.holds_turn.store(true, Ordering::Relaxed);
    }

    /// Lets the current load, if there is one, wait for this one. Fails if this one waits for it, or if the current load was
    /// begun in a load of the same record.
    pub(crate) fn wait(self: &Arc<Self>) -> Result<Option<Waiting>, Error> {
        let Ok(load) = CURRENT.try_with(Arc::clone) else { return Ok(None) };
        let _decided = WAITING.lock();
        let mut path = vec![self.clone()];
        // Loads that don't share the flight of their key, as in a cache that is disabled, wait for no flight.
        if load.is_within(self, &mut path) || self.waits_for(&load, &mut path) {
            return Err(cycle(&path));
        }
        load.waits_for.lock().push(self.clone());
        if load.has_turn(self.cache) {
            self.turn_lent.notify_one();
        }
        Ok(Some(Waiting { load, other: self.clone() }))
    }

    /// Whether it was begun in a load of the same record as `other`, or is one. Adds the loads up to that one to `path`.
    fn is_within(self: &Arc<Self>, other: &Self, path: &mut Vec<Arc<Self>>) -> bool {
        let before = path.len();
        let mut load = Some(self);
        while let Some(within) = load {
            path.push(within.clone());
            if within.key.is_some() && within.key == other.key && within.backend == other.backend {
                path.reverse();
                return true;
            }
            load = within.outer.as_ref();
        }
        path.truncate(before);
        false
    }

    /// Whether it waits for `load`, through any number of others, which are added to `path`.
    fn waits_for(&self, load: &Arc<Self>, path: &mut Vec<Arc<Self>>) -> bool {
        let waits_for = self.waits_for.lock().clone();
        for other in waits_for {
            path.push(other.clone());
            if Arc::ptr_eq(&other, load) || other.waits_for(load, path) {
                return true;
            }
            path.pop();
        }
        false
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waits_for = self.load.waits_for.lock();
        if let Some(place) = waits_for.iter().position(|other| Arc::ptr_eq(other, &self.other)) {
            waits_for.swap_remove(place);
        }
    }
}

/// `path`: each of these loads waits for the next, and the last for the first.
fn cycle(path: &[Arc<Load>]) -> Error {
    let mut keys: Vec<_> = path.iter().filter_map(|load| load.key.as_ref()).map(ToString::to_string).collect();
    if keys.len() == 1 || keys.first() != keys.last() {
        keys.extend(keys.first().cloned());
    }
    Error::LoadCycle { keys: keys.join(" -> ") }
}
