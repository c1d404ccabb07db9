//! An update, as the cache drives it: watch the entry, decide, commit; and again while others change the entry.

use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::call::{CallOptions, call, check_runtime, on_store, report, timed_out};
use super::deadline::within;
use super::pending::Write;
use super::{Attempt, Backend, Decision, Store, StoreUpdate};
use crate::error::Error;
use crate::record::{Found, Key, Selection};

pub(crate) struct Update<'a> {
    backend: &'a Backend,
    /// Dropped before `write`: a connection is given back before the key is retried as a pending one.
    store: Box<dyn StoreUpdate + 'a>,
    write: Write<'a>,
}

impl Backend {
    /// Begins an update. Unless a commit of it is done, or it is cancelled, the key is [pending](Self::is_pending) afterwards:
    /// whether the commit of an update that was dropped has reached the server is unknown.
    pub(crate) fn update<'a>(&'a self, key: &'a Key, selection: &'a Selection) -> Update<'a> {
        let store = on_store!(&self.inner.store, store => store.update(key, selection));
        #[cfg(feature = "__proof")]
        let store = match &self.inner.rig {
            Some(rig) => rig.update(&self.inner.store, key, store),
            None => store,
        };
        Update { backend: self, store, write: Write::new(self, key.clone()) }
    }
}

impl Update<'_> {
    /// Shows the entry, which nobody may change before the [`commit`](Self::commit): otherwise that is not carried out.
    ///
    /// Boxed, as is `commit`, where no type of the user's is involved. Otherwise the user's own futures would nest too deep for
    /// the compiler's default limit.
    pub(crate) fn watch(&mut self) -> BoxFuture<'_, Result<Attempt<Option<Found>>, Error>> {
        let Self { backend, store, write } = self;
        async {
            let options = CallOptions::for_write(backend, &write.key);
            let watched = call(backend, &options, || format!("update {}", write.key), pin!(store.watch())).await;
            measure_connections(backend);
            watched
        }
        .boxed()
    }

    /// Carries the decision out, unless the entry has changed; returns whether changes were applied.
    pub(crate) fn commit(&mut self, decision: Decision) -> BoxFuture<'_, Result<Attempt<bool>, Error>> {
        let Self { backend, store, write } = self;
        async {
            let options = CallOptions::for_write(backend, &write.key);
            let step = pin!(store.commit(decision));
            let committed = call(backend, &options, || format!("update {}", write.key), step).await?;
            if let Attempt::Done(_) = committed {
                write.succeed();
            }
            Ok(committed)
        }
        .boxed()
    }

    /// Bounds a whole update, with the pauses between its attempts.
    pub(crate) async fn limited<R>(
        backend: &Backend,
        key: &Key,
        limit: Duration,
        update: BoxFuture<'_, Result<R, Error>>,
    ) -> Result<R, Error> {
        // Before any timer, which would panic.
        check_runtime()?;
        let updated = within(limit, update).await;
        measure_connections(backend);
        updated.unwrap_or_else(|| {
            // Says nothing about the server: others may keep the entry busy.
            let advice = "it will be invalidated: others keep changing the entry, or the server is slow";
            let error = timed_out(backend, &format!("update {key}"), limit, advice);
            let of_server = backend.inner.store.breaker(key);
            report(backend, of_server.as_deref().unwrap_or(&backend.inner.breaker), &error, false, false);
            Err(error)
        })
    }

    /// Ends the update with nothing written.
    pub(crate) fn cancel(mut self) {
        self.write.succeed();
    }
}

fn measure_connections(backend: &Backend) {
    if let Some(redis) = backend.inner.store.redis() {
        backend.inner.metrics.update_connections(|| redis.update_connections());
    }
}
