//! Invalidation: deletes the entry and the lease of a record, in its own version of the keys and in those of
//! `also_invalidates`.
//!
//! All versions are invalidated at the same time, each by a step of its own, since their keys may lie in different cluster
//! slots. A failure of one leaves out no other, and makes the call an error.

use futures_util::future::{BoxFuture, join, join_all};
use futures_util::{FutureExt, StreamExt, stream};
use tracing::Instrument;

use crate::cache::Core;
use crate::error::Error;
use crate::metrics::spans;
use crate::record::Key;

/// The number of keys that are sent together: enough to keep a connection busy, few enough for each to meet its deadline.
const AT_A_TIME: usize = 128;

impl Core {
    /// Invalidates the record in every version, and returns whether any of them had an entry. The key counts as written from
    /// this call on: if the future is dropped, even before its first poll, the invalidation is retried in the background.
    pub(crate) fn invalidate(&self, key: Key) -> impl Future<Output = Result<bool, Error>> + '_ {
        let (own, others) = (self.backend.invalidate(key.clone()), self.invalidate_other_versions(&key));
        async move {
            let (own, others) = join(own, others).instrument(spans::invalidate(self.shape, &key)).await;
            // After a failure too, which is retried in the background. A get that starts now must not join a load whose
            // lease was revoked: it could not take its result.
            self.flights.forget(&key);
            let invalidated = own.and_then(|was_there| Ok(was_there | others?));
            self.metrics.invalidated(&invalidated);
            invalidated
        }
    }

    pub(super) fn invalidate_other_versions<'a>(
        &'a self,
        key: &Key,
    ) -> impl Future<Output = Result<bool, Error>> + use<'a> {
        let invalidations = join_all(self.keys.in_other_versions(key).map(|key| self.backend.invalidate(key)));
        async move { invalidations.await.into_iter().try_fold(false, |was_there, result| Ok(was_there | result?)) }
    }

    /// Like `invalidate`, but does nothing before it is polled.
    pub(crate) fn invalidate_when_polled(&self, key: Result<Key, Error>) -> BoxFuture<'_, Result<bool, Error>> {
        async move { self.invalidate(key?).await }.boxed()
    }

    pub(crate) fn invalidate_many(&self, keys: Vec<Result<Key, Error>>) -> BoxFuture<'_, Vec<Result<bool, Error>>> {
        async move {
            // All are begun before the first is sent, so that each is retried if this future is dropped.
            let begun = keys.into_iter().map(|key| match key {
                Ok(key) => self.invalidate(key).boxed(),
                Err(error) => std::future::ready(Err(error)).boxed(),
            });
            stream::iter(begun.collect::<Vec<_>>()).buffered(AT_A_TIME).collect().await
        }
        .boxed()
    }
}
