//! The loads of several keys, brought together in one call of the user's loader: what `get_many` loads by.
//!
//! Each key has a flight and a lease of its own, and this hands its load a part of the common call. That begins when every
//! load that it awaits has asked for its record, or has turned out not to be needed, or to be somebody else's for now.
//! Knows nothing of leases.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::Instrument;

use crate::cacheable::Cacheable;
use crate::error::{self, BoxError, Cause};
use crate::load::{AbortOnDrop, Loading, ended_early};

/// A loader of many records whose types are erased.
type Loader<T> = Box<dyn Fn(Vec<<T as Cacheable>::Id>) -> BoxFuture<'static, Result<Vec<T>, BoxError>> + Send + Sync>;

/// The loads that share calls of one loader.
pub(crate) struct Batch<T: Cacheable> {
    loader: Loader<T>,
    /// How many loads the next call awaits.
    awaited: Arc<watch::Sender<usize>>,
    next: Mutex<Option<Next<T>>>,
}

/// The next call, as long as one of its loads is there.
struct Next<T: Cacheable> {
    ids: Vec<T::Id>,
    call: WeakShared<BoxFuture<'static, Ended<T>>>,
}

/// What a call came to: records to be taken out.
type Ended<T> = Arc<Result<Mutex<Records<T>>, Failure>>;

struct Records<T: Cacheable> {
    by_id: HashMap<T::Id, T>,
    /// Whether there are some that nobody has asked for.
    has_others: bool,
}

enum Failure {
    Failed(Cause),
    Panicked(String),
}

/// Makes the next call wait, until it is dropped.
pub(crate) struct Awaited {
    awaited: Arc<watch::Sender<usize>>,
}

impl<T: Cacheable> Batch<T> {
    pub(crate) fn new<F, Fut, R, E>(loader: F) -> Arc<Self>
    where
        F: Fn(Vec<T::Id>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        R: IntoIterator<Item = T>,
        E: Into<BoxError> + 'static,
    {
        let loader: Loader<T> = Box::new(move |ids| {
            let loading = loader(ids);
            async { Ok(loading.await.map_err(error::boxed)?.into_iter().collect()) }.boxed()
        });
        Arc::new(Self { loader, awaited: Arc::default(), next: Mutex::default() })
    }

    /// Makes the next call wait for one load more.
    pub(crate) fn await_one(&self) -> Awaited {
        self.awaited.send_modify(|awaited| *awaited += 1);
        Awaited { awaited: self.awaited.clone() }
    }

    /// Asks for a record at once, and waits for the call. The call ends early when nobody waits for it any more.
    pub(crate) fn load(self: &Arc<Self>, id: T::Id) -> Loading<T> {
        let call = self.join(id.clone());
        async move {
            match &*call.await {
                Ok(records) => records.lock().take(&id),
                Err(Failure::Failed(cause)) => Err(cause.clone().into_boxed()),
                Err(Failure::Panicked(message)) => std::panic::resume_unwind(Box::new(message.clone())),
            }
        }
        .boxed()
    }

    fn join(self: &Arc<Self>, id: T::Id) -> Shared<BoxFuture<'static, Ended<T>>> {
        let mut next = self.next.lock();
        if let Some(next) = &mut *next
            && let Some(call) = next.call.upgrade()
        {
            next.ids.push(id);
            return call;
        }
        let batch = self.clone();
        let call = async move {
            let mut call = AbortOnDrop(tokio::spawn(batch.call().in_current_span()));
            let ended = (&mut call.0).await.unwrap_or_else(|ended| Err(Failure::Panicked(ended_early(ended))));
            Arc::new(ended.map(Mutex::new))
        };
        let call = call.boxed().shared();
        *next = call.downgrade().map(|call| Next { ids: vec![id], call });
        call
    }

    async fn call(self: Arc<Self>) -> Result<Records<T>, Failure> {
        // The sender is right here.
        let _ = self.awaited.subscribe().wait_for(|awaited| *awaited == 0).await;
        let ids = self.next.lock().take().map(|next| next.ids).unwrap_or_default();
        let asked: HashSet<_> = ids.iter().cloned().collect();
        let loaded = (self.loader)(ids).await.map_err(|error| Failure::Failed(Cause::new(error)))?;
        let by_id: HashMap<_, _> = loaded.into_iter().map(|record| (record.id(), record)).collect();
        let has_others = by_id.keys().any(|id| !asked.contains(id));
        Ok(Records { by_id, has_others })
    }
}

impl<T: Cacheable> Records<T> {
    fn take(&mut self, id: &T::Id) -> Result<Option<T>, BoxError> {
        match self.by_id.remove(id) {
            None if self.has_others => Err("the loader returned no record with this id, but one with an id that was \
                not asked for: it must return each record with the id that it was asked for by"
                .into()),
            record => Ok(record),
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.awaited.send_modify(|awaited| *awaited -= 1);
    }
}
