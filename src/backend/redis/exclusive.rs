//! Exclusive connections: each belongs to one transaction at a time, from WATCH to EXEC.
//!
//! WATCH belongs to a socket, and any EXEC on it ends it: a shared connection would lose updates. An exclusive connection never
//! reconnects, so a WATCH can't be lost before its EXEC unnoticed.

use std::collections::VecDeque;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use redis::RedisResult;
use tokio::runtime::{self, Handle};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connect::Link;
use super::errors::{not_answered, too_busy, without_transactions};
use super::resp::{Reply, command};
use super::shared::{Epoch, Shared};
use crate::backend::deadline::within;
use crate::defaults::WAIT_TIMEOUT;
use crate::record::Key;

/// The longest that a step waits for a connection, as for its turn on the shared one.
const LONGEST_WAIT: Duration = WAIT_TIMEOUT;

/// It is used again only if its transaction has ended as expected: after an error or a cancellation, the server may still be
/// working on it, or still watch a key.
pub(super) struct Exclusive {
    link: Link,
    /// Whether it has been idle before: then the network may have cut it unnoticed.
    pub(super) was_idle: bool,
    /// Whether WATCH has effect: a server's own does, and that behind a proxy is tested.
    watches: bool,
    pub(super) epoch: Epoch,
    runtime: runtime::Id,
    /// There while it is in use.
    permit: Option<OwnedSemaphorePermit>,
}

impl Exclusive {
    /// Sends commands, and waits for a reply to each.
    pub(super) async fn exchange(
        &mut self,
        limit: Duration,
        commands: &[Vec<u8>],
    ) -> RedisResult<Vec<RedisResult<Reply>>> {
        within(limit, self.link.exchange(commands)).await.ok_or_else(not_answered)?
    }

    /// Whether a transaction is carried out though a watched key has changed. That is so if a proxy sends WATCH over a connection
    /// that its clients share, and the transaction over another one, as Envoy does.
    async fn ignores_watch(&mut self, key: &Key, limit: Duration) -> RedisResult<bool> {
        // The key lies where the lease does, and needs no permission that the lease doesn't.
        let tested = format!("{}:watch", key.lock());
        let tested = tested.as_bytes();
        let commands = [
            command(&[b"WATCH", tested]),
            command(&[b"SET", tested, b"", b"PX", b"100"]),
            command(&[b"MULTI"]),
            command(&[b"DEL", tested]),
            command(&[b"EXEC"]),
        ];
        let replies = self.exchange(limit, &commands).await?;
        // An error of any of them says nothing about that, and the transaction's own commands get it too.
        let executed = replies.into_iter().collect::<RedisResult<Vec<_>>>().ok().and_then(|mut replies| replies.pop());
        Ok(executed.is_some_and(|executed| !executed.is_nil()))
    }
}

/// The exclusive connections to one server.
pub(super) struct Exclusives {
    shared: Arc<Shared>,
    most: usize,
    /// A permit for each connection that may be in use.
    permits: Arc<Semaphore>,
    idle: parking_lot::Mutex<VecDeque<Exclusive>>,
    /// The epoch in which WATCH turned out to have no effect.
    unwatched: parking_lot::Mutex<Option<Epoch>>,
}

impl Exclusives {
    pub(super) fn new(shared: Arc<Shared>, most: usize) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(most));
        Self { shared, most, permits, idle: parking_lot::Mutex::default(), unwatched: parking_lot::Mutex::default() }
    }

    /// How many steps have a connection or are making one, and how many connections are idle.
    pub(super) fn in_use_and_idle(&self) -> (usize, usize) {
        (self.most - self.permits.available_permits(), self.idle.lock().len())
    }

    /// Waits for a permit, and takes an idle connection for it, or makes one.
    pub(super) async fn take(&self) -> RedisResult<Exclusive> {
        let permit = within(LONGEST_WAIT, self.permits.clone().acquire_owned()).await.ok_or_else(too_busy)?;
        let permit = Some(permit.expect("nobody closes the semaphore"));
        let runtime = Handle::current().id();
        // In another epoch, the shared connection may lead to another server. Another runtime may end, or not be driven.
        // Credentials that are about to end are not renewed here: another connection is made with new ones.
        let is_usable = |idle: &Exclusive| {
            self.shared.is_current(&idle.epoch) && idle.runtime == runtime && !idle.link.has_old_credentials()
        };
        if let Some(idle) = iter::from_fn(|| self.idle.lock().pop_front()).find(is_usable) {
            return Ok(Exclusive { permit, ..idle });
        }
        // Boxed, as it is rare.
        let (link, epoch) = self.shared.connect_beside().boxed().await?;
        let watches = link.knows_role;
        Ok(Exclusive { link, was_idle: false, watches, epoch, runtime, permit })
    }

    /// The same for a transaction on this record. Fails if a proxy lets no client watch a key.
    pub(super) async fn take_to_watch(&self, key: &Key, limit: Duration) -> RedisResult<Exclusive> {
        if self.idle.lock().is_empty() {
            let epoch = self.shared.epoch().boxed().await?;
            let is_unwatched = self.unwatched.lock().as_ref().is_some_and(|epoch| self.shared.is_current(epoch));
            if epoch.hangs_up || is_unwatched {
                return Err(without_transactions());
            }
        }
        let mut connection = self.take().await?;
        if !connection.watches {
            if connection.ignores_watch(key, limit).boxed().await? {
                *self.unwatched.lock() = Some(connection.epoch);
                return Err(without_transactions());
            }
            connection.watches = true;
        }
        Ok(connection)
    }

    /// Takes a connection back that is as it was.
    pub(super) fn give_back(&self, mut connection: Exclusive) {
        // The permit goes last, so that the next one in line finds the connection.
        let permit = connection.permit.take();
        self.idle.lock().push_back(Exclusive { was_idle: true, ..connection });
        drop(permit);
    }

    /// Drops idle connections, since the network may have cut them all.
    pub(super) fn drop_idle(&self) {
        self.idle.lock().clear();
    }
}
