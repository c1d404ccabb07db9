//! Runs a user's loader: under a deadline, with its panics as errors.
//!
//! Knows nothing of leases.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, TryFutureExt};
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::error::{self, BoxError, Cause, Error};
use crate::record::{Cacheable, Key, Record};

/// A user's loader with its id, with their types erased: boxed on a miss, and called under the lease.
pub(crate) type Loader = Box<dyn FnOnce() -> Loading + Send>;

/// The future of a [`Loader`].
pub(crate) type Loading = Pin<Box<dyn Future<Output = Result<Option<Record>, BoxError>> + Send>>;

/// Erases the types of a load.
pub(crate) fn erase<T: Cacheable, E: Into<BoxError> + 'static>(
    loading: impl Future<Output = Result<Option<T>, E>> + Send + 'static,
) -> Loading {
    Box::pin(loading.map(|loaded| match loaded {
        Ok(record) => Ok(record.map(erase_record)),
        Err(error) => Err(error::boxed(error)),
    }))
}

/// Erases the type of a loaded record, which is first made what a hit would return.
pub(super) fn erase_record<T: Cacheable>(mut record: T) -> Record {
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
    limited(key, limit, task.map_err(ended_early))
}

/// Like [`run`], but in the caller's task: for a caller that does nothing else.
pub(crate) fn run_here<R>(
    key: &Key,
    limit: Duration,
    work: impl Future<Output = Result<R, BoxError>>,
) -> impl Future<Output = Result<R, Error>> {
    limited(key, limit, AssertUnwindSafe(work).catch_unwind().map_err(message))
}

/// Waits for user code for at most `limit`. The outer error of `ended` is the message of a panic.
async fn limited<R>(
    key: &Key,
    limit: Duration,
    ended: impl Future<Output = Result<Result<R, BoxError>, String>>,
) -> Result<R, Error> {
    match tokio::time::timeout(limit, ended).await {
        Ok(Ok(loaded)) => loaded.map_err(|error| Error::Load { key: key.to_string(), source: Cause::new(error) }),
        Ok(Err(message)) => Err(Error::LoadPanicked { key: key.to_string(), message }),
        Err(_elapsed) => {
            let advice = "make the loader faster, or raise load_timeout";
            Err(Error::Timeout { action: format!("loading {key}"), limit, advice })
        }
    }
}

/// Why a task ended without a result.
pub(crate) fn ended_early(ended: JoinError) -> String {
    ended.try_into_panic().map_or_else(|_| "its runtime shut down".to_owned(), message)
}

fn message(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => panic.downcast_ref::<&str>().copied().unwrap_or("no message").to_owned(),
    }
}
