//! Batched loads: the loads of several keys in one call of the user's loader.
//!
//! Each key has a flight and a lease of its own, whose load takes its record from the common call. The call of a `get_many` starts
//! once each load that it awaits has asked for its record, isn't needed after all, or has to wait for another caller first. The
//! call for single gets starts when its window is over. Knows nothing of leases.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::Instrument;

use super::loader::{Loaded, Loader, Loading, Panicked, ended_early};
use super::nested::Load;
use crate::cache::Core;
use crate::error::{BoxError, Cause};
use crate::metrics::{Counted, spans};
use crate::record::Key;

/// An id with its type erased.
pub(crate) type ErasedId = Box<dyn Any + Send>;

/// A loader of many records, with its types erased: in one call, or each by itself.
#[derive(Clone)]
pub(crate) enum ManyLoader {
    Together(Arc<BatchLoader>),
    Each(Arc<EachLoader>),
}

/// Makes the loader of one of many records.
pub(crate) type EachLoader = dyn Fn(ErasedId) -> Loader + Send + Sync;

/// A user's loader of many records in one call.
pub(crate) struct BatchLoader {
    pub(crate) run: Box<dyn Fn(Vec<ErasedId>) -> LoadingMany + Send + Sync>,
    /// Whether an id without an answer is an error. Otherwise the primary has no such record.
    pub(crate) answers_each: bool,
}

type LoadingMany = BoxFuture<'static, Result<Vec<LoadedOne>, BoxError>>;

/// The answer for an id, as it is written in a key; `None` if it can't be written.
pub(crate) type LoadedOne = (Option<Box<str>>, Result<Loaded, Cause>);

/// The loads that share calls of one loader.
pub(crate) struct Batch {
    core: Arc<Core>,
    loader: Arc<BatchLoader>,
    start: Start,
    next: Mutex<Option<Next>>,
}

/// When a call starts.
enum Start {
    /// When nothing is awaited any more.
    Awaited(TaskTracker),
    /// So long after the first id was asked for, or when there are so many.
    Window(Duration, usize),
}

/// The next call. It exists as long as one of its loads does.
struct Next {
    asked: Arc<Mutex<Vec<(Key, ErasedId)>>>,
    began: Instant,
    is_full: Arc<Notify>,
    load: Arc<Load>,
    call: WeakShared<BoxFuture<'static, Ended>>,
}

/// The result of a call. Each load takes its answer out.
type Ended = Arc<Result<Answers, Cause>>;

struct Answers {
    by_id: HashMap<Box<str>, Result<Loaded, Cause>>,
    /// The id of a record that the loader was not asked for.
    other: Option<Box<str>>,
    answers_each: bool,
}

/// Makes the next call wait until this is dropped.
pub(crate) type Awaited = TaskTrackerToken;

impl Batch {
    /// For a call that starts once nothing is [awaited](Self::await_one).
    pub(crate) fn new(core: Arc<Core>, loader: Arc<BatchLoader>) -> Arc<Self> {
        let awaited = TaskTracker::new();
        // Or `wait` would never return.
        awaited.close();
        Arc::new(Self { core, loader, start: Start::Awaited(awaited), next: Mutex::default() })
    }

    /// For calls that start `window` after the first id was asked for, or with `at_most` ids.
    pub(crate) fn windowed(core: Arc<Core>, loader: Arc<BatchLoader>, window: Duration, at_most: usize) -> Arc<Self> {
        Arc::new(Self { core, loader, start: Start::Window(window, at_most), next: Mutex::default() })
    }

    /// Makes the next call wait for one more load.
    pub(crate) fn await_one(&self) -> Option<Awaited> {
        match &self.start {
            Start::Awaited(awaited) => Some(awaited.token()),
            Start::Window(..) => None,
        }
    }

    /// The loader of one record.
    pub(crate) fn loader(self: Arc<Self>, key: Key, id: ErasedId) -> Loader {
        Loader::batched(move |_given| self.load(key, id))
    }

    /// Asks for a record at once, and waits for the call. The call is aborted once no load waits for it.
    pub(crate) fn load(self: &Arc<Self>, key: Key, id: ErasedId) -> Loading {
        let (call, load) = self.join(key.clone(), id);
        async move {
            let _waiting = load.wait()?;
            match &*call.await {
                Ok(answers) => answers.of(key.id()),
                Err(cause) => Err(cause.clone().into_boxed()),
            }
        }
        .boxed()
    }

    /// Whether a call should have started long ago: nobody drives its runtime.
    fn is_overdue(&self, next: &Next) -> bool {
        const LATE: Duration = Duration::from_secs(1);
        matches!(self.start, Start::Window(window, _) if next.began.elapsed() > window.saturating_add(LATE))
    }

    fn join(self: &Arc<Self>, key: Key, id: ErasedId) -> (Shared<BoxFuture<'static, Ended>>, Arc<Load>) {
        let mut next = self.next.lock();
        if let Some(waiting) = next.as_ref().filter(|next| !self.is_overdue(next))
            && let Some(call) = waiting.call.upgrade()
        {
            let joined = (call, waiting.load.clone());
            let asked_for = {
                let mut asked = waiting.asked.lock();
                // A get and a refresh may ask for the same record. The ids of a `get_many` are all different.
                let may_repeat = matches!(self.start, Start::Window(..));
                if !may_repeat || !asked.iter().any(|(other, _)| *other == key) {
                    asked.push((key, id));
                }
                asked.len()
            };
            self.start_if_full(&mut next, asked_for);
            return joined;
        }
        let (asked, is_full) = (Arc::new(Mutex::new(vec![(key, id)])), Arc::new(Notify::new()));
        let load = self.core.begin_load(None);
        let run = load.clone().run(self.clone().call(asked.clone(), is_full.clone()));
        let call = async move {
            let call = AbortOnDropHandle::new(tokio::spawn(run.in_current_span()));
            let ended = call.await.unwrap_or_else(|ended| Err(Cause::new(Panicked(ended_early(ended)))));
            Arc::new(ended)
        };
        let call = call.boxed().shared();
        let began = Instant::now();
        *next = call.downgrade().map(|call| Next { asked, began, is_full, load: load.clone(), call });
        self.start_if_full(&mut next, 1);
        (call, load)
    }

    /// Starts the next call at once if it has as many ids as it may have.
    fn start_if_full(&self, next: &mut Option<Next>, asked_for: usize) {
        if matches!(self.start, Start::Window(_, at_most) if asked_for >= at_most)
            && let Some(full) = next.take()
        {
            full.is_full.notify_one();
        }
    }

    async fn call(
        self: Arc<Self>,
        asked: Arc<Mutex<Vec<(Key, ErasedId)>>>,
        is_full: Arc<Notify>,
    ) -> Result<Answers, Cause> {
        match &self.start {
            // Another load may be awaited before this task runs again.
            Start::Awaited(awaited) => {
                while !awaited.is_empty() {
                    awaited.wait().await;
                }
            }
            Start::Window(window, _) => {
                let _ = tokio::time::timeout(*window, is_full.notified()).await;
            }
        }
        // From here on nobody joins.
        self.next.lock().take_if(|next| Arc::ptr_eq(&next.asked, &asked));
        let (keys, ids): (Vec<_>, Vec<_>) = std::mem::take(&mut *asked.lock()).into_iter().unzip();
        let counted = Counted::begin_batch(&self.core.metrics, ids.len());
        let span = spans::load_many(self.core.shape, ids.len());
        let loaded = (self.loader.run)(ids).instrument(span.clone()).await;
        counted.end(&span, &loaded);
        let loaded = loaded.map_err(Cause::new)?;
        let asked: HashSet<_> = keys.iter().map(Key::id).collect();
        let by_id = HashMap::with_capacity(loaded.len());
        let mut answers = Answers { by_id, other: None, answers_each: self.loader.answers_each };
        for (id, loaded) in loaded {
            match id {
                Some(id) if asked.contains(&*id) => drop(answers.by_id.insert(id, loaded)),
                other => {
                    self.core.report_other_id();
                    answers.other = Some(other.unwrap_or_else(|| "an id that can't be written".into()));
                }
            }
        }
        Ok(answers)
    }
}

impl Answers {
    fn of(&self, id: &str) -> Result<Loaded, BoxError> {
        match (self.by_id.get(id), &self.other) {
            (Some(loaded), _) => loaded.clone().map_err(Cause::into_boxed),
            (None, Some(other)) => Err(format!(
                "the loader returned no record with this id, but one with the id \"{other:.100}\", which was not asked for: it must \
                 return each record with the id that it was asked for by"
            )
            .into()),
            (None, None) if self.answers_each => {
                Err("the loader has left this id out: answer `Loaded::not_found()` if the primary has no such record".into())
            }
            (None, None) => Ok(Loaded::not_found()),
        }
    }
}
