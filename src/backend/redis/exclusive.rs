//! The connections to one server that belong to one update at a time, from WATCH to EXEC.
//!
//! A connection is used again only if its transaction has ended as expected: after an error or a cancellation, the server may
//! still be working on it, or still watch a key. It is used only in the epoch, and on the runtime, that it was made in.

use std::collections::VecDeque;
use std::iter;
use std::sync::Arc;

use futures_util::FutureExt;
use parking_lot::Mutex;
use redis::RedisResult;
use tokio::runtime::{self, Handle};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connect::Link;
use super::shared::{Epoch, Shared};

pub(super) struct Exclusive {
    pub(super) link: Link,
    /// Whether it has been idle before: then the network may have cut it unnoticed.
    pub(super) was_idle: bool,
    pub(super) epoch: Epoch,
    runtime: runtime::Id,
}

pub(super) struct Exclusives {
    shared: Arc<Shared>,
    /// A permit for each connection that may be in use.
    most: usize,
    permits: Arc<Semaphore>,
    pub(super) idle: Mutex<VecDeque<Exclusive>>,
}

impl Exclusives {
    pub(super) fn new(shared: Arc<Shared>, most: usize) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        Self { shared, most, permits: Arc::new(Semaphore::new(most)), idle: Mutex::default() }
    }

    /// How many connections are in use, and how many are idle.
    pub(super) fn in_use_and_idle(&self) -> (usize, usize) {
        (self.most - self.permits.available_permits(), self.idle.lock().len())
    }

    /// Waits for a permit, and takes an idle connection for it, or makes one.
    pub(super) async fn take(&self) -> RedisResult<(OwnedSemaphorePermit, Exclusive)> {
        let permit = self.permits.clone().acquire_owned().await.expect("nobody closes the semaphore");
        let runtime = Handle::current().id();
        // In another epoch, the shared connection may lead to another server. Another runtime may end, or not be driven.
        let is_usable = |idle: &Exclusive| self.shared.is_current(&idle.epoch) && idle.runtime == runtime;
        if let Some(idle) = iter::from_fn(|| self.idle.lock().pop_front()).find(is_usable) {
            return Ok((permit, idle));
        }
        // Boxed, as it is rare.
        let (link, epoch) = self.shared.connect_beside().boxed().await?;
        Ok((permit, Exclusive { link, was_idle: false, epoch, runtime }))
    }
}
