//! Which store a backend has, and how one of its steps is called.

use std::sync::Arc;

use super::breaker::Breaker;
use super::memory::Memory;
use super::redis::Redis;
use crate::record::Key;

#[derive(Clone)]
pub(super) enum AnyStore {
    Memory(Arc<Memory>),
    Redis(Arc<Redis>),
}

impl AnyStore {
    /// The breaker of the server that has the key, if that server has one of its own and is known.
    pub(super) fn breaker(&self, key: &Key) -> Option<Arc<Breaker>> {
        self.redis()?.topology.breaker(key)
    }

    pub(super) fn redis(&self) -> Option<&Arc<Redis>> {
        match self {
            Self::Memory(_) => None,
            Self::Redis(redis) => Some(redis),
        }
    }
}

/// Calls one step on whichever store the backend has. A step that is named has hooks in a rigged backend.
///
/// A macro, since each store's step has a future of its own type. The future is pinned here: passed on by value, it would take
/// its memory once more at each level.
macro_rules! dispatch {
    ($backend:ident, $options:expr, $($hooked:ident)? $action:literal, $key:expr, $store:ident => $step:expr) => {{
        let options = &$options;
        let step = std::pin::pin!(async {
            $(
                #[cfg(feature = "__proof")]
                if let Some(rig) = &$backend.inner.rig {
                    let step = async {
                        match &$backend.inner.store {
                            AnyStore::Memory(store) => { let $store = rig::Rigged { rig, store }; $step.await }
                            AnyStore::Redis(store) => { let $store = rig::Rigged { rig, store }; $step.await }
                        }
                    };
                    return Box::pin(rig.around(Step::$hooked, $key, options, step)).await;
                }
            )?
            match &$backend.inner.store {
                AnyStore::Memory($store) => $step.await,
                AnyStore::Redis($store) => $step.await,
            }
        });
        call($backend, options, || format!(concat!($action, " {}"), $key), step).await
    }};
}
pub(super) use dispatch;
