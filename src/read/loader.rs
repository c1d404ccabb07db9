//! Runs a user's loader: under a deadline, with its panics as errors.
//!
//! Knows nothing of leases.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::error::{self, BoxError, Cause, Error};
use crate::record::{Cacheable, Key, Record};

/// A user's loader with its id, with their types erased: boxed on a miss, and called under the lease.
pub(crate) struct Loader {
    pub(super) run: Box<dyn FnOnce(Given) -> Loading + Send>,
    /// Whether it shares a call with other loads. Then the call is counted and has a span, and not this load.
    pub(super) is_batched: bool,
}

/// The future of a [`Loader`].
pub(crate) type Loading = Pin<Box<dyn Future<Output = Result<Loaded, BoxError>> + Send>>;

/// What a loader is told about its load.
pub(crate) struct Given {
    /// The record that was found after the lease was granted.
    pub(crate) stale: Option<Record>,
    pub(crate) deadline: Instant,
}

/// A loader's answer, with the type of its record erased.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) answer: Answer,
    pub(crate) terms: Terms,
}

#[derive(Clone)]
pub(crate) enum Answer {
    Record(Record),
    NotFound,
    /// The primary still has the record that the loader was given.
    Unchanged,
}

/// How a loader wants its answer to be stored, if not as the cache's settings say.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Terms {
    pub(crate) ttl: Option<Duration>,
    pub(crate) stale_for: Option<Duration>,
    pub(crate) no_store: bool,
}

impl Loader {
    pub(crate) fn new(run: impl FnOnce(Given) -> Loading + Send + 'static) -> Self {
        Self { run: Box::new(run), is_batched: false }
    }

    pub(super) fn batched(run: impl FnOnce(Given) -> Loading + Send + 'static) -> Self {
        Self { run: Box::new(run), is_batched: true }
    }
}

impl Loaded {
    /// An answer to be stored as the cache's settings say.
    pub(crate) fn new<T: Cacheable>(record: Option<T>) -> Self {
        record.map_or_else(Self::not_found, |record| Self {
            answer: Answer::Record(erase_record(record)),
            terms: Terms::default(),
        })
    }

    pub(crate) fn not_found() -> Self {
        Self { answer: Answer::NotFound, terms: Terms::default() }
    }

    /// The record for the caller. `given`: the record that the loader was given.
    pub(crate) fn record(&self, given: Option<&Record>) -> Result<Option<Record>, BoxError> {
        const NOTHING_GIVEN: &str =
            "the loader answered `unchanged`, but `Load::stale` had no record: answer `record` or `not_found`";
        match &self.answer {
            Answer::Record(record) => Ok(Some(record.clone())),
            Answer::NotFound => Ok(None),
            Answer::Unchanged => given.cloned().map(Some).ok_or_else(|| NOTHING_GIVEN.into()),
        }
    }
}

/// Erases the types of a load.
pub(crate) fn erase<R, E: Into<BoxError> + 'static>(
    loading: impl Future<Output = Result<R, E>> + Send + 'static,
    erase: impl FnOnce(R) -> Loaded + Send + 'static,
) -> Loading {
    Box::pin(loading.map(|loaded| match loaded {
        Ok(loaded) => Ok(erase(loaded)),
        Err(error) => Err(error::boxed(error)),
    }))
}

/// Erases the type of a loaded record, which is first made what a hit would return.
pub(crate) fn erase_record<T: Cacheable>(mut record: T) -> Record {
    record.reset_skipped();
    Arc::new(record)
}

/// Runs `work` for at most `limit`. `work` is dropped at the limit, and when this future is dropped. It runs in a task of its
/// own, so that code that blocks its thread holds up nothing else that the caller does.
///
/// The task starts at once, so that the future takes no memory for `work`.
pub(crate) fn run<R: Send + 'static, W>(
    key: &Key,
    limit: Duration,
    work: W,
) -> impl Future<Output = Result<R, Error>> + use<'_, R, W>
where
    W: Future<Output = Result<R, BoxError>> + Send + 'static,
{
    let task = AbortOnDropHandle::new(tokio::spawn(work.in_current_span()));
    limited(key, limit, task.map(|ended| ended.unwrap_or_else(|ended| Err(Panicked(ended_early(ended)).into()))))
}

/// Like [`run`], but in the caller's task: for a caller that does nothing else.
pub(crate) fn run_here<R>(
    key: &Key,
    limit: Duration,
    work: impl Future<Output = Result<R, BoxError>>,
) -> impl Future<Output = Result<R, Error>> {
    limited(key, limit, caught(work))
}

/// Makes a panic of `work` an error.
async fn caught<R>(work: impl Future<Output = Result<R, BoxError>>) -> Result<R, BoxError> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| Err(Panicked(message(panic)).into()))
}

/// Waits for user code for at most `limit`.
async fn limited<R>(key: &Key, limit: Duration, ended: impl Future<Output = Result<R, BoxError>>) -> Result<R, Error> {
    match tokio::time::timeout(limit, ended).await {
        Ok(loaded) => loaded.map_err(|error| failed(key, error)),
        Err(_elapsed) => {
            let advice = "make the loader faster, or raise load_timeout";
            Err(Error::Timeout { action: format!("loading {key}"), limit, advice })
        }
    }
}

/// The panic of a load, or of the call that it shares: with its message.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Panicked(pub(super) String);

/// The error of a load. An error of this library that says why loads can't go on is passed on as it is.
fn failed(key: &Key, error: BoxError) -> Error {
    let source = Cause::new(error);
    if let Some(Panicked(message)) = source.downcast_ref() {
        return Error::LoadPanicked { key: key.to_string(), message: message.clone() };
    }
    match source.downcast_ref() {
        Some(cycle @ Error::LoadCycle { .. }) => cycle.clone(),
        _ => Error::Load { key: key.to_string(), source },
    }
}

/// Why a task ended without a result.
pub(super) fn ended_early(ended: JoinError) -> String {
    ended.try_into_panic().map_or_else(|_| "its runtime shut down".to_owned(), message)
}

fn message(panic: Box<dyn Any + Send>) -> String {
    const TASK_LOCAL: &str = "cannot access a task-local storage value";
    let message = match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => panic.downcast_ref::<&str>().copied().unwrap_or("no message").to_owned(),
    };
    if !message.contains(TASK_LOCAL) {
        return message;
    }
    format!(
        "{message}: a loader runs in a task of its own; take the value before the call, and in the loader write \
         `NAME.scope(value, async move {{ .. }})`"
    )
}
