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
use std::time::{Duration, Instant};

use redis::{ErrorKind, RedisResult};
use tokio::time;

use super::queue::ATTEMPTS;
use super::{Request, Shared, State};
use crate::backend::redis::address::Address;
use crate::backend::redis::connect::{Endpoint, Link, connect};
use crate::backend::redis::errors::{connection_lost, is_of_replica};
use crate::backend::redis::resp::encode;

#[derive(Clone)]
pub(in crate::backend::redis) struct Epoch {
    number: u64,
    pub(super) address: Arc<Address>,
    endpoint: Endpoint,
    pub(in crate::backend::redis) run_id: Option<String>,
    /// Whether only commands on keys may be sent: see [`Link`].
    pub(in crate::backend::redis) hangs_up: bool,
}

impl Epoch {
    pub(super) fn new(number: u64, link: &Link) -> Self {
        let Link { address, endpoint, run_id, hangs_up, .. } = link;
        let (address, endpoint, run_id) = (address.clone(), endpoint.clone(), run_id.clone());
        Self { number, address, endpoint, run_id, hangs_up: *hangs_up }
    }
}

/// The server of an epoch, to be compared with that of the next.
#[derive(Clone)]
pub(in crate::backend::redis) struct Seen {
    endpoint: Endpoint,
    run_id: Option<String>,
    /// Whether it was a replica, whose data are its primary's.
    pub(super) is_replica: bool,
    /// When the last question went out that it has answered.
    pub(super) answered: Instant,
}

/// What has become of the server of the epoch before.
pub(super) enum Change {
    /// It is the same, or there was none.
    None,
    /// Another server has taken its place.
    TakenOver { last_seen: Instant },
    /// The server at this place was started after it was last seen.
    Restarted { last_seen: Instant, run_id: String },
}

impl Seen {
    pub(super) fn new(link: &Link) -> Self {
        let Link { endpoint, run_id, is_replica, .. } = link;
        Self { endpoint: endpoint.clone(), run_id: run_id.clone(), is_replica: *is_replica, answered: Instant::now() }
    }

    /// What a new connection says about the server that this one saw.
    pub(super) fn change(&self, link: &Link) -> Change {
        /// The server counts whole seconds.
        const ROUNDING: Duration = Duration::from_secs(1);
        let last_seen = self.answered;
        match (&self.run_id, &link.run_id) {
            (Some(before), Some(now)) if before == now => Change::None,
            // A replica has what its primary has, whenever it was started.
            (Some(_), Some(_)) if self.is_replica || link.is_replica => Change::None,
            (Some(_), Some(run_id)) if link.uptime.is_none_or(|uptime| uptime <= last_seen.elapsed() + ROUNDING) => {
                Change::Restarted { last_seen, run_id: run_id.clone() }
            }
            (Some(_), Some(_)) => Change::TakenOver { last_seen },
            // Nobody knows. A server that has only cut a connection is far more likely.
            _ if self.endpoint == link.endpoint => Change::None,
            _ => Change::TakenOver { last_seen },
        }
    }
}

impl Shared {
    /// The current epoch. Connects if there is none.
    pub(in crate::backend::redis) async fn epoch(self: &Arc<Self>) -> RedisResult<Epoch> {
        for _ in 0..ATTEMPTS {
            if let Some(epoch) = &self.state.lock().epoch {
                return Ok(epoch.clone());
            }
            let [_pong] =
                self.run(&Request::new(self.settings.connect_timeout, &|_, out| encode(out, &[b"PING"]))).await?;
        }
        Err(connection_lost())
    }

    /// When the server of the current or the last epoch was last known to answer.
    pub(in crate::backend::redis) fn last_seen(&self) -> Option<Instant> {
        self.state.lock().seen.as_ref().map(|seen| seen.answered)
    }

    /// The server of the current or the last epoch.
    pub(in crate::backend::redis) fn seen(&self) -> Option<Seen> {
        self.state.lock().seen.clone()
    }

    /// Compares the next connection with a server elsewhere whose place this one has taken.
    pub(in crate::backend::redis) fn follows(&self, before: Seen) {
        self.state.lock().seen.get_or_insert(before);
    }

    /// Another server has taken the place of this one. What is here from now on has nothing to do with what was.
    pub(in crate::backend::redis) fn is_followed(&self) {
        self.state.lock().seen = None;
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
        let limit = self.settings.connect_timeout;
        let deadline = time::Instant::now() + limit;
        let connected = connect(&epoch.address, Some(&epoch.endpoint), deadline, limit).await;
        let link = connected.inspect_err(|error| {
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
            self.note_change();
        }
    }

    /// Entries may be at another server from now on.
    pub(super) fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }
}
