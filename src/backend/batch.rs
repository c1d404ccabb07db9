//! Reads of many keys: one request to each server, for a bounded number of keys at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

use super::call::{CallOptions, call, check_runtime, dispatch};
use super::{Backend, Each, Store};
use crate::error::Error;
use crate::record::{Key, Selection};

/// The most keys of all batches that are read at a time: enough to keep the connections busy, and few enough that their replies
/// fit the CPU's caches, and that a single get behind them is not held up.
pub(super) const MOST_KEYS: u32 = 1_024;

impl Backend {
    /// Calls `each` with what was found for each key, by its index. Returns the indices of keys whose server failed, with the
    /// error. A key that is in neither has to be read by itself.
    pub(crate) async fn read_many(
        &self,
        keys: &[&Key],
        selection: &Selection,
        with_ttl: bool,
        each: &mut Each<'_>,
    ) -> Vec<(usize, Error)> {
        #[cfg(feature = "__proof")]
        if self.inner.rig.is_some() {
            // Each key is read by itself, so that it passes its hooks.
            return Vec::new();
        }
        if keys.is_empty() {
            // As for near hits alone, which need no runtime.
            return Vec::new();
        }
        let _permits = permits(self, keys.len()).await;
        let before = self.takeovers();
        let each = Mutex::new(each);
        let reads = by_server(self, keys).into_iter().map(async |indices| {
            let of_server: Vec<_> = indices.iter().map(|index| keys[*index]).collect();
            let mut each = |at: usize, found| {
                // Otherwise it is read by itself.
                if !self.is_pending(of_server[at]) && !self.is_doubtful(of_server[at], before) {
                    let mut each = each.lock();
                    each(indices[at], found);
                }
            };
            let options = CallOptions::for_get(self, of_server[0]);
            let read = dispatch!(self, options, "read", of_server[0], store => {
                store.read_many(&of_server, selection, with_ttl, &mut each)
            });
            read.err().map(|error| (indices, error))
        });
        let failures = join_all(reads).await.into_iter().flatten();
        failures.flat_map(|(indices, error)| indices.into_iter().map(move |index| (index, error.clone()))).collect()
    }
}

/// Waits for the permits of a batch, but not for long, and then reads without them: a batch that nobody polls keeps its
/// permits, and must not stop all others.
async fn permits(backend: &Backend, keys: usize) -> Option<SemaphorePermit<'_>> {
    check_runtime().ok()?;
    let permits = u32::try_from(keys).map_or(MOST_KEYS, |keys| keys.min(MOST_KEYS));
    timeout(backend.operation_timeout() / 4, backend.inner.batches.acquire_many(permits)).await.ok()?.ok()
}

/// The indices of the keys, grouped by the server that has them, as far as that is known.
fn by_server(backend: &Backend, keys: &[&Key]) -> Vec<Vec<usize>> {
    let mut servers = BTreeMap::<_, Vec<_>>::new();
    for (index, key) in keys.iter().enumerate() {
        // Each server has one breaker.
        let server = backend.inner.store.breaker(key).as_ref().map(Arc::as_ptr);
        servers.entry(server).or_default().push(index);
    }
    servers.into_values().collect()
}
