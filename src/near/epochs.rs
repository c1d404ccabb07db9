//! Key epochs: counters that advance with each change of an entry that this process learns of.
//!
//! *The epoch rule.* What was read from Redis may be older than a change that has been handled since. So a reader notes the key's
//! epoch before it sends its read, and the near cache keeps the result only if the epoch is still the same.
//!
//! A counter for each key would be too many: keys share stripes by their hash, and with a stripe its epoch.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::Moment;
use crate::record::Key;

const STRIPES: usize = 1024;

pub(crate) struct Epochs {
    stripes: Box<[Stripe]>,
    hasher: RandomState,
}

#[derive(Default)]
struct Stripe {
    epoch: Mutex<u64>,
    advanced: Notify,
}

/// What a reader notes before it sends its read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadEpoch {
    pub(super) epoch: u64,
    pub(super) noted_at: Moment,
}

impl Default for Epochs {
    fn default() -> Self {
        Self { stripes: (0..STRIPES).map(|_| Stripe::default()).collect(), hasher: RandomState::default() }
    }
}

impl Epochs {
    pub(crate) fn current(&self, key: &Key) -> u64 {
        *self.lock(key)
    }

    /// While this is held, no change of the key is handled.
    pub(super) fn lock(&self, key: &Key) -> MutexGuard<'_, u64> {
        self.stripe(key.as_str()).epoch.lock()
    }

    /// Waits until the epoch is no longer this one.
    pub(crate) async fn changed_since(&self, key: &Key, epoch: u64) {
        let advanced = self.stripe(key.as_str()).advanced.notified();
        if self.current(key) == epoch {
            advanced.await;
        }
    }

    pub(super) fn advance(&self, key: &str) {
        self.stripe(key).advance();
    }

    pub(super) fn advance_all(&self) {
        self.stripes.iter().for_each(Stripe::advance);
    }

    fn stripe(&self, key: &str) -> &Stripe {
        let index = usize::try_from(self.hasher.hash_one(key) % STRIPES as u64).unwrap_or(0);
        &self.stripes[index]
    }
}

impl Stripe {
    fn advance(&self) {
        *self.epoch.lock() += 1;
        self.advanced.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{KeySpace, Schema};

    #[tokio::test]
    async fn a_change_wakes_those_who_wait_for_it() {
        let epochs = Epochs::default();
        let key = KeySpace::new("", Some("billing"), &Schema::new("product")).key(&7).unwrap();
        let before = epochs.current(&key);
        epochs.advance(key.as_str());
        epochs.changed_since(&key, before).await;
        let change = async { epochs.advance(key.as_str()) };
        tokio::join!(biased; epochs.changed_since(&key, before + 1), change);
    }
}
