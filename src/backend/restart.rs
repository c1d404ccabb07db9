//! Servers that start again with data of their own, which may be of any age.
//!
//! All types of this backend are read around the cache for the keys of such a server, until one process has swept them there. See
//! [`takeover`](super::takeover) for how it is noticed.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::sleep;

use super::call::{CallOptions, call};
use super::pending::{is_forbidden, warn_unswept};
use super::redis::Restarted;
use super::{Backend, DELETE_PREFIX_TIMEOUTS, Inner};
use crate::backoff::Backoff;
use crate::error::Error;
use crate::proof::Guard;
use crate::record::Key;

/// Pauses between two attempts to sweep, or to find out whether another process has.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

impl Backend {
    /// Reads around the cache for all types, until they are swept.
    pub(super) fn distrust(&self, server: &Restarted) {
        if !self.enforces(Guard::Replay) {
            return;
        }
        let Inner { takeovers, pending, .. } = &*self.inner;
        let types = takeovers.types();
        tracing::warn!(
            backend = %self,
            "a server has started again, and may have old entries: reads go around it until they are swept"
        );
        pending.remember_restart(server, types);
        takeovers.count_restart();
        self.apply_pending();
    }

    /// Whether the key is at a server that has started again and is not swept yet.
    pub(super) fn is_unswept(&self, key: &Key) -> bool {
        // Asked without a lock: who holds that of the slots may wait for that of the pending ones.
        let unswept = self.inner.pending.unswept(key.prefix());
        let redis = self.inner.store.redis();
        redis.is_some_and(|redis| unswept.iter().any(|server| redis.topology.has_key(&server.server, key)))
    }

    /// Sweeps a type at a server that has started again, unless another process does. Returns whether that is done.
    async fn sweep_restarted(&self, server: &Restarted, prefix: &str) -> Result<bool, Error> {
        let Some(redis) = self.inner.store.redis() else { return Ok(true) };
        let limit = self.operation_timeout() * DELETE_PREFIX_TIMEOUTS;
        let options = CallOptions { limit, quiet: true, ..CallOptions::for_write(self, None) };
        call(self, &options, || format!("sweep {prefix}"), pin!(redis.sweep_restarted(server, prefix))).await
    }

    pub(super) fn sweep_in_background(&self) {
        if !self.inner.pending.restarted().is_empty() {
            self.inner.sweep.ensure(|| sweep(Arc::downgrade(&self.inner)));
        }
    }
}

/// Sweeps servers that have started again, in a task of its own: it may take long, and failed writes must not wait for it.
async fn sweep(inner: Weak<Inner>) {
    let mut backoff = Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE);
    while let Some(inner) = inner.upgrade() {
        let backend = Backend { inner };
        let pending = &backend.inner.pending;
        for (server, types) in pending.restarted() {
            for prefix in types {
                let swept = backend.sweep_restarted(&server, &prefix).await;
                backend.all_written(&prefix);
                match swept {
                    Ok(true) => pending.swept(&server, &prefix),
                    Ok(false) => {}
                    Err(error) if is_forbidden(&error) => {
                        warn_unswept(&prefix, &error);
                        pending.swept(&server, &prefix);
                    }
                    Err(error) => {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        backend.repeats().warn(format!("sweep {prefix} {cause:?}"), |times| {
                            tracing::warn!(prefix, cause, times, "a server that has started again is not swept yet");
                        });
                    }
                }
            }
        }
        if backend.inner.sweep.finish(|| pending.restarted().is_empty()) {
            return;
        }
        drop(backend);
        sleep(backoff.next()).await;
    }
}
