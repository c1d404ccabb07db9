//! Batched loads: the loads of several keys in one call of the user's loader, for `get_many`.
//!
//! Each key has a flight and a lease of its own, whose load takes its record from the common call. The call starts once each
//! load that it awaits has asked for its record, isn't needed after all, or has to wait for another caller first. Knows
//! nothing of leases.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::Instrument;

use super::loader::{Loading, ended_early, erase_record};
use crate::cache::Core;
use crate::error::{self, BoxError, Cause};
use crate::record::{Cacheable, Key, KeySpace, Record};

/// An id with its type erased.
pub(crate) type ErasedId = Box<dyn Any + Send>;

/// A user's loader of many records, with its types erased. It returns each record with its id as written in a key, or `None`
/// for an id that can't be written.
type Loader = Box<dyn Fn(Vec<ErasedId>) -> BoxFuture<'static, Result<Loaded, BoxError>> + Send + Sync>;

type Loaded = Vec<(Option<Box<str>>, Record)>;

/// The loads that share calls of one loader.
pub(crate) struct Batch {
    core: Arc<Core>,
    loader: Loader,
    /// The loads that the next call awaits.
    awaited: TaskTracker,
    next: Mutex<Option<Next>>,
}

/// The next call. It exists as long as one of its loads does.
struct Next {
    asked: Vec<(Key, ErasedId)>,
    call: WeakShared<BoxFuture<'static, Ended>>,
}

/// The result of a call. Each load takes its record out.
type Ended = Arc<Result<Mutex<Records>, Failure>>;

struct Records {
    by_id: HashMap<Box<str>, Record>,
    /// The id of a record that the loader was not asked for.
    other: Option<Box<str>>,
}

enum Failure {
    Failed(Cause),
    Panicked(String),
}

/// Makes the next call wait until this is dropped.
pub(crate) type Awaited = TaskTrackerToken;

impl Batch {
    pub(crate) fn new<T, F, Fut, R, E>(core: Arc<Core>, loader: F) -> Arc<Self>
    where
        T: Cacheable,
        F: Fn(Vec<T::Id>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        R: IntoIterator<Item = T>,
        E: Into<BoxError> + 'static,
    {
        let with_id = |record: T| {
            let id = KeySpace::id_text(&mut |out| record.write_id(out));
            (id, erase_record(record))
        };
        let loader: Loader = Box::new(move |ids| {
            let ids = ids.into_iter().flat_map(ErasedId::downcast).map(|id| *id).collect();
            let loading = loader(ids).map(move |loaded| match loaded {
                Ok(records) => Ok(records.into_iter().map(with_id).collect()),
                Err(error) => Err(error::boxed(error)),
            });
            loading.boxed()
        });
        let awaited = TaskTracker::new();
        // Or `wait` would never return.
        awaited.close();
        Arc::new(Self { core, loader, awaited, next: Mutex::default() })
    }

    /// Makes the next call wait for one more load.
    pub(crate) fn await_one(&self) -> Awaited {
        self.awaited.token()
    }

    /// Asks for a record at once, and waits for the call. The call is aborted once no load waits for it.
    pub(crate) fn load(self: &Arc<Self>, key: Key, id: ErasedId) -> Loading {
        let call = self.join(key.clone(), id);
        async move {
            match &*call.await {
                Ok(records) => records.lock().take(key.id()),
                Err(Failure::Failed(cause)) => Err(cause.clone().into_boxed()),
                Err(Failure::Panicked(message)) => std::panic::resume_unwind(Box::new(message.clone())),
            }
        }
        .boxed()
    }

    fn join(self: &Arc<Self>, key: Key, id: ErasedId) -> Shared<BoxFuture<'static, Ended>> {
        let mut next = self.next.lock();
        if let Some(next) = &mut *next
            && let Some(call) = next.call.upgrade()
        {
            next.asked.push((key, id));
            return call;
        }
        let batch = self.clone();
        let call = async move {
            let call = AbortOnDropHandle::new(tokio::spawn(batch.call().in_current_span()));
            let ended = call.await.unwrap_or_else(|ended| Err(Failure::Panicked(ended_early(ended))));
            Arc::new(ended.map(Mutex::new))
        };
        let call = call.boxed().shared();
        *next = call.downgrade().map(|call| Next { asked: vec![(key, id)], call });
        call
    }

    async fn call(self: Arc<Self>) -> Result<Records, Failure> {
        // Another load may be awaited before this task runs again.
        while !self.awaited.is_empty() {
            self.awaited.wait().await;
        }
        let asked = self.next.lock().take().map(|next| next.asked).unwrap_or_default();
        let (keys, ids): (Vec<_>, _) = asked.into_iter().unzip();
        let loaded = (self.loader)(ids).await.map_err(|error| Failure::Failed(Cause::new(error)))?;
        let asked: HashSet<_> = keys.iter().map(Key::id).collect();
        let mut records = Records { by_id: HashMap::with_capacity(loaded.len()), other: None };
        for (id, record) in loaded {
            match id {
                Some(id) if asked.contains(&*id) => drop(records.by_id.insert(id, record)),
                other => {
                    self.core.report_other_id();
                    records.other = Some(other.unwrap_or_else(|| "an id that can't be written".into()));
                }
            }
        }
        Ok(records)
    }
}

impl Records {
    fn take(&mut self, id: &str) -> Result<Option<Record>, BoxError> {
        match (self.by_id.remove(id), &self.other) {
            (None, Some(other)) => Err(format!(
                "the loader returned no record with this id, but one with the id \"{other:.100}\", which was not asked for: it must \
                 return each record with the id that it was asked for by"
            )
            .into()),
            (record, _) => Ok(record),
        }
    }
}
