//! Sentinels: the shared connection goes to the master that they name, and follows a failover.
//!
//! They are asked before each attempt to connect, and now and then while connected. A server is used only after it has been
//! asked itself, over the very connection: one that was demoted goes on answering reads.

mod survey;
mod url;

use std::sync::Arc;
use std::time::Duration;

use redis::RedisResult;
use tokio::time::timeout;

pub(super) use self::survey::advice;
use self::survey::{Named, NoMaster, Sentinel, survey};
pub(in crate::backend) use self::url::Sentinels;
use super::connect::connect;
use super::shared::Connected;
use super::topology::Place;
use crate::pause::jittered;

/// How often the sentinels are asked while all is well, and while a server that they have named is connected to. Jittered to
/// 50 to 100 %.
const POLL: Duration = Duration::from_millis(600);
const POLL_WHILE_CONNECTING: Duration = Duration::from_millis(200);
/// How long the sentinels may take to answer, and then their master, as a part of `connect_timeout`: both is done within that.
const SHARE: f64 = 0.4;

impl Sentinels {
    /// Asks the sentinels, and connects to the server that they name; to another one, if they name that meanwhile.
    pub(super) async fn connect(&self, connect_timeout: Duration) -> RedisResult<Connected> {
        // Their connections belong to this runtime.
        let mut sentinels = self.each();
        loop {
            let Named { place, .. } = self.survey(&mut sentinels, connect_timeout).await?;
            let address = Arc::new(self.address_at(&place)?);
            tokio::select! {
                connected = timeout(connect_timeout.mul_f64(SHARE), connect(&address)) => {
                    let link = connected.map_err(|_elapsed| NoMaster::silent(&place))?;
                    let link = link.map_err(|error| NoMaster::unusable(&place, &error))?;
                    tracing::info!(address = %self, master = %place, "connected to the master that the sentinels name");
                    return Ok(Connected { link, address });
                }
                // A master that is gone may take long to show it.
                () = self.another_is_named(&mut sentinels, &place, connect_timeout) => {}
            }
        }
    }

    /// Waits until more than half of the sentinels name another master than the one at this place. A minority may not know
    /// of a failover yet, and can't make us leave a live master.
    pub(super) async fn another_is_master(&self, than: &Place, connect_timeout: Duration) {
        let mut sentinels = self.each();
        loop {
            tokio::time::sleep(jittered(POLL)).await;
            if let Ok(Named { place, by_majority: true }) = self.survey(&mut sentinels, connect_timeout).await
                && place != *than
            {
                return;
            }
        }
    }

    async fn another_is_named(&self, sentinels: &mut [Sentinel], than: &Place, connect_timeout: Duration) {
        loop {
            tokio::time::sleep(jittered(POLL_WHILE_CONNECTING)).await;
            if self.survey(sentinels, connect_timeout).await.is_ok_and(|named| named.place != *than) {
                return;
            }
        }
    }

    async fn survey(&self, sentinels: &mut [Sentinel], connect_timeout: Duration) -> Result<Named, NoMaster> {
        survey(sentinels, &self.name, connect_timeout.mul_f64(SHARE)).await
    }
}
