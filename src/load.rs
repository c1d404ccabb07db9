//! Running a user's loader: in a task of its own, under a deadline, with its panics as errors.
//!
//! Knows nothing of leases.

use std::pin::Pin;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};
use tracing::Instrument;

use crate::cacheable::Cacheable;
use crate::error::{self, BoxError, Cause, Error};
use crate::key::Key;

/// A loader whose types are erased, as a flight carries it.
pub(crate) type Loader<T> = Box<dyn FnOnce(<T as Cacheable>::Id) -> Loading<T> + Send>;

/// The future of a [`Loader`].
pub(crate) type Loading<T> = Pin<Box<dyn Future<Output = Result<Option<T>, BoxError>> + Send>>;

/// Erases the types of a loader.
pub(crate) fn erase<T, F, Fut, E>(loader: F) -> Loader<T>
where
    T: Cacheable,
    F: FnOnce(T::Id) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Option<T>, E>> + Send + 'static,
    E: Into<BoxError> + 'static,
{
    Box::new(|id| erase_loading(loader(id)))
}

/// Erases the types of a loader's future.
pub(crate) fn erase_loading<T, E>(loading: impl Future<Output = Result<Option<T>, E>> + Send + 'static) -> Loading<T>
where
    E: Into<BoxError> + 'static,
{
    Box::pin(async { loading.await.map_err(error::boxed) })
}

/// Runs `work`, at most for `limit`; then, or when this future is dropped, `work` is dropped.
pub(crate) async fn run<R: Send + 'static>(
    key: &Key,
    limit: Duration,
    work: impl Future<Output = Result<R, BoxError>> + Send + 'static,
) -> Result<R, Error> {
    let mut task = AbortOnDrop(tokio::spawn(work.in_current_span()));
    match tokio::time::timeout(limit, &mut task.0).await {
        Ok(Ok(Ok(loaded))) => Ok(loaded),
        Ok(Ok(Err(error))) => Err(Error::Load { key: key.to_string(), source: Cause::new(error) }),
        Ok(Err(ended)) => Err(Error::LoadPanicked { key: key.to_string(), message: message(ended) }),
        Err(_elapsed) => {
            let advice = "make the loader faster, or raise load_timeout";
            Err(Error::Timeout { action: format!("loading {key}"), limit, advice })
        }
    }
}

struct AbortOnDrop<R>(JoinHandle<R>);

impl<R> Drop for AbortOnDrop<R> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn message(ended: JoinError) -> String {
    let Ok(panic) = ended.try_into_panic() else {
        return "its runtime shut down".to_owned();
    };
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => panic.downcast_ref::<&str>().copied().unwrap_or("no message").to_owned(),
    }
}
