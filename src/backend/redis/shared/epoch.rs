//! Epochs: the connections of this process that must lead to the same server.
//!
//! An *epoch* is the life of one shared connection, to one endpoint. The exclusive connections of updates and the trackers are
//! made within an epoch, to its endpoint, and are not used after its end. So what one of them writes is seen by reads over the
//! shared connection, though a name or an address may lead to several servers. What is written over the shared connection
//! itself is seen because the reads go over the same socket.
//!
//! An epoch begins and ends with its connection: see `task`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use redis::{ErrorKind, RedisResult};
use tokio::time::timeout;

use super::queue::ATTEMPTS;
use super::{Request, Shared, State};
use crate::backend::redis::address::Address;
use crate::backend::redis::connect::{Endpoint, Link, connect_to};
use crate::backend::redis::errors::{connection_lost, is_of_replica, not_answered};
use crate::backend::redis::resp::encode;

#[derive(Clone)]
pub(in crate::backend::redis) struct Epoch {
    number: u64,
    pub(super) address: Arc<Address>,
    endpoint: Endpoint,
    run_id: Option<String>,
}

impl Epoch {
    pub(super) fn new(number: u64, link: &Link) -> Self {
        let Link { address, endpoint, run_id, .. } = link;
        Self { number, address: address.clone(), endpoint: endpoint.clone(), run_id: run_id.clone() }
    }
}

impl Shared {
    /// The current epoch. Connects if there is none.
    async fn epoch(self: &Arc<Self>) -> RedisResult<Epoch> {
        for _ in 0..ATTEMPTS {
            if let Some(epoch) = &self.state.lock().epoch {
                return Ok(epoch.clone());
            }
            let [_pong] =
                self.run(&Request::new(self.settings.connect_timeout, &|_, out| encode(out, &[b"PING"]))).await?;
        }
        Err(connection_lost())
    }

    pub(in crate::backend::redis) fn is_current(&self, epoch: &Epoch) -> bool {
        self.ended.load(Ordering::Acquire) == epoch.number
    }

    /// Whether reads over the current shared connection see what was written over another connection of this epoch: if it is
    /// the same epoch, or the same endpoint and `run_id`.
    pub(in crate::backend::redis) async fn is_still_at(self: &Arc<Self>, epoch: &Epoch) -> bool {
        if self.is_current(epoch) {
            return true;
        }
        let now = self.epoch().await;
        now.is_ok_and(|now| now.run_id.is_some() && now.run_id == epoch.run_id && now.endpoint == epoch.endpoint)
    }

    /// Makes another connection within the current epoch, to its endpoint.
    pub(in crate::backend::redis) async fn connect_beside(self: &Arc<Self>) -> RedisResult<(Link, Epoch)> {
        let epoch = self.epoch().await?;
        let connect = connect_to(&epoch.address, epoch.endpoint.clone());
        let connected = timeout(self.settings.connect_timeout, connect).await;
        let link = connected.unwrap_or_else(|_elapsed| Err(not_answered())).inspect_err(|error| {
            if is_of_replica(error) {
                self.leave(&epoch);
            }
        })?;
        // One address may be a proxy or a virtual address with several servers behind it.
        if let (Some(here), Some(there)) = (&epoch.run_id, &link.run_id)
            && here != there
        {
            self.leave(&epoch);
            return Err((ErrorKind::Io, "the address leads to another server than the shared connection").into());
        }
        Ok((link, epoch))
    }

    /// Ends an epoch, if it is the current one. The next command makes another connection.
    pub(in crate::backend::redis) fn leave(self: &Arc<Self>, epoch: &Epoch) {
        let state = self.state.lock();
        if self.is_current(epoch) && state.epoch.is_some() {
            let task = state.task;
            drop(state);
            self.end_task(task, &connection_lost());
        }
    }

    /// Ends the epoch, if there is one. It takes the locked state, so that the epoch and its number change together.
    pub(super) fn end_epoch(&self, state: &mut State) {
        if state.epoch.take().is_some() {
            self.ended.fetch_add(1, Ordering::AcqRel);
            self.ended_of_all.fetch_add(1, Ordering::AcqRel);
        }
    }
}
