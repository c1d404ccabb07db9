//! Sentinels: the shared connection goes to the master that they name, and follows a failover.
//!
//! They are asked before each attempt to connect, and now and then while connected. Their word is not enough: over each
//! connection the server itself is asked for its role too, since one that was demoted goes on answering reads.

mod survey;
mod url;

use std::sync::Arc;
use std::time::Duration;

use redis::RedisResult;
use tokio::time::timeout;

pub(super) use self::survey::advice;
use self::survey::{Named, NoMaster, Sentinel, survey};
pub(in crate::backend) use self::url::Sentinels;
use super::connect::{Link, connect};
use super::topology::Place;
use crate::backoff::jittered;

/// How often the sentinels are asked while connected, and while an attempt to connect is under way. Jittered to 50 to 100 %.
const POLL: Duration = Duration::from_millis(600);
const POLL_WHILE_CONNECTING: Duration = Duration::from_millis(200);
/// The share of `connect_timeout` for the sentinels' answers, and again for the greeting of their master.
const SHARE: f64 = 0.4;

impl Sentinels {
    /// Asks the sentinels, and connects to the server that they name. If they name another one meanwhile, connects to that.
    pub(super) async fn connect(&self, connect_timeout: Duration) -> RedisResult<Link> {
        // Connected anew each time: connections belong to the runtime that they were made on.
        let mut sentinels = self.each();
        loop {
            let Named { place, .. } = self.survey(&mut sentinels, connect_timeout).await?;
            let address = Arc::new(self.address_at(&place)?);
            tokio::select! {
                connected = timeout(connect_timeout.mul_f64(SHARE), connect(&address)) => {
                    let link = connected.map_err(|_elapsed| NoMaster::silent(&place))?;
                    let link = link.map_err(|error| NoMaster::unusable(&place, &error))?;
                    tracing::info!(address = %self, master = %place, "connected to the master that the sentinels name");
                    return Ok(link);
                }
                // If the named master is gone, connecting to it may hang until its timeout.
                () = self.poll(&mut sentinels, POLL_WHILE_CONNECTING, connect_timeout, |named| named.place != place) => {}
            }
        }
    }

    /// Waits until more than half of the sentinels name another master than the one at this place. A minority may be behind, and
    /// must not make us leave a live master.
    pub(super) async fn wait_for_new_master(&self, than: &Place, connect_timeout: Duration) {
        self.poll(&mut self.each(), POLL, connect_timeout, |named| named.by_majority && named.place != *than).await;
    }

    /// Asks the sentinels after each pause until they name a server that is `wanted`.
    async fn poll(
        &self,
        sentinels: &mut [Sentinel],
        pause: Duration,
        connect_timeout: Duration,
        is_wanted: impl Fn(&Named) -> bool,
    ) {
        loop {
            tokio::time::sleep(jittered(pause)).await;
            if self.survey(sentinels, connect_timeout).await.is_ok_and(|named| is_wanted(&named)) {
                return;
            }
        }
    }

    async fn survey(&self, sentinels: &mut [Sentinel], connect_timeout: Duration) -> Result<Named, NoMaster> {
        survey(sentinels, &self.name, connect_timeout.mul_f64(SHARE)).await
    }
}
