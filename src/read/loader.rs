//! Running a user's loader: under a deadline, with its panics as errors.
//!
//! Knows nothing of leases.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::error::Elapsed;
use tracing::Instrument;

use crate::cacheable::Cacheable;
use crate::error::{self, BoxError, Cause, Error};
use crate::key::Key;
use crate::shape::Record;

/// A user's loader with its id, without their types: boxed on a miss, called under the lease.
pub(crate) type Loader = Box<dyn FnOnce() -> Loading + Send>;

/// The future of a [`Loader`].
pub(crate) type Loading = Pin<Box<dyn Future<Output = Result<Option<Record>, BoxError>> + Send>>;

/// Erases the types of a load.
pub(crate) fn erase<T: Cacheable, E: Into<BoxError> + 'static>(
    loading: impl Future<Output = Result<Option<T>, E>> + Send + 'static,
) -> Loading {
    Box::pin(loading.map(|loaded| match loaded {
        Ok(record) => Ok(record.map(|record| Arc::new(record) as Record)),
        Err(error) => Err(error::boxed(error)),
    }))
}

/// Runs `work`, at most for `limit`; then, or when this future is dropped, `work` is dropped. In a task of its own, so that
/// work that blocks its thread holds up nothing else that the caller does.
///
/// It begins at once, so that the future takes no memory for `work`.
pub(crate) fn run<R: Send + 'static, W>(
    key: &Key,
    limit: Duration,
    work: W,
) -> impl Future<Output = Result<R, Error>> + use<'_, R, W>
where
    W: Future<Output = Result<R, BoxError>> + Send + 'static,
{
    let mut task = AbortOnDrop(tokio::spawn(work.in_current_span()));
    async move {
        let ended = async { (&mut task.0).await.map_err(ended_early) };
        judged(key, limit, tokio::time::timeout(limit, ended).await)
    }
}

/// The same in the caller's task, for a caller that does nothing else.
pub(crate) async fn run_here<R>(
    key: &Key,
    limit: Duration,
    work: impl Future<Output = Result<R, BoxError>>,
) -> Result<R, Error> {
    let ended = AssertUnwindSafe(work).catch_unwind().map(|ended| ended.map_err(message));
    judged(key, limit, tokio::time::timeout(limit, ended).await)
}

/// What work came to: a result, a panic's message, or nothing in time.
fn judged<R>(
    key: &Key,
    limit: Duration,
    ended: Result<Result<Result<R, BoxError>, String>, Elapsed>,
) -> Result<R, Error> {
    match ended {
        Ok(Ok(Ok(loaded))) => Ok(loaded),
        Ok(Ok(Err(error))) => Err(Error::Load { key: key.to_string(), source: Cause::new(error) }),
        Ok(Err(message)) => Err(Error::LoadPanicked { key: key.to_string(), message }),
        Err(_elapsed) => {
            let advice = "make the loader faster, or raise load_timeout";
            Err(Error::Timeout { action: format!("loading {key}"), limit, advice })
        }
    }
}

pub(crate) struct AbortOnDrop<R>(pub(crate) JoinHandle<R>);

impl<R> Drop for AbortOnDrop<R> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a task has to say that ended without a result.
pub(crate) fn ended_early(ended: JoinError) -> String {
    ended.try_into_panic().map_or_else(|_| "its runtime shut down".to_owned(), message)
}

fn message(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => panic.downcast_ref::<&str>().copied().unwrap_or("no message").to_owned(),
    }
}
