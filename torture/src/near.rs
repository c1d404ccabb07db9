//! The near caches of a run: their settings, their promise, and the fence at the end of a round.
//!
//! The fence: once nobody writes any more, all writes have reached the cache, and some time has passed, every process
//! reads every record through its near caches, and looks at the entry in Redis. A record that isn't the last version
//! then would stay old for ever.

use std::time::Duration;

use anyhow::Result;
use cache_aside::NearCache;
use tokio::time::{Instant, sleep};

use crate::history::Kind;
use crate::loader::Plan;
use crate::operations::{Actor, Caller, Told};

/// Short, so that the bound is tight, but long enough for a busy machine to answer.
pub(crate) const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(200);
pub(crate) const HEARTBEAT_TIMEOUT: Duration = Duration::from_millis(300);
/// How long a near cache may answer with a record that another backend's write has made old.
pub(crate) const BOUND: Duration = HEARTBEAT_INTERVAL.saturating_add(HEARTBEAT_TIMEOUT);
#[allow(clippy::cast_possible_truncation, reason = "half a second")]
pub(crate) const BOUND_NANOS: u64 = BOUND.as_nanos() as u64;
/// The time between the last write or fault and the fence.
const QUIET: Duration = BOUND.saturating_mul(2);
/// The pause between two looks at all records meanwhile.
const PAUSE: Duration = Duration::from_millis(100);
/// TTL of entries in Redis, in milliseconds. It is longer than a round, so that an entry which should have been dropped
/// is still there at its end.
pub(crate) const LONGEST_TTL: u64 = 15_000;

/// Nothing is evicted for lack of room or because of its age.
pub(crate) fn settings(keys: u32) -> NearCache {
    NearCache::entries(2 * keys as usize).max_age(Duration::from_millis(2 * LONGEST_TTL))
}

impl Actor {
    /// Reads every `step`th record from `first` on, at first for a while, so that near caches have records that may get
    /// old.
    pub(crate) async fn read_at_fence(self, first: u16, step: u16) -> Result<()> {
        let keys = (u32::from(first)..self.stage.keys).step_by(usize::from(step));
        let end = Instant::now() + QUIET;
        while Instant::now() < end {
            self.look_up(Kind::Lookup, keys.clone()).await;
            sleep(PAUSE).await;
        }
        self.look_up(Kind::Fence, keys.clone()).await;
        let bare = Caller { cache: self.stage.bare.clone(), backend: None, patience: None };
        for key in keys {
            let inspect = bare.cache.inspect(self.stage.id(key));
            self.call(key, Kind::FenceInspect, &bare, None, inspect, |found| Told::inspected(&found)).await;
        }
        Ok(())
    }

    async fn look_up(&self, kind: Kind, keys: impl Iterator<Item = u32>) {
        for key in keys {
            // The second cache is the first again.
            for index in [0, 2] {
                self.lookup(kind, key, &self.stage.caller(index), Plan::PLAIN).await;
            }
        }
    }
}
