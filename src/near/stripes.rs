//! How often something was told about each key: what makes tickets void, and wakes those who wait.
//!
//! Not a counter for each key, which would be too many: keys share stripes by their hash. Keys of one stripe make each
//! other's tickets void, and wake each other's waiters.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

const STRIPES: usize = 1024;

pub(super) struct Stripes {
    stripes: Box<[Stripe]>,
    hasher: RandomState,
}

#[derive(Default)]
pub(super) struct Stripe {
    /// How often something was told about one of its keys.
    generation: Mutex<u64>,
    told: Notify,
}

impl Stripes {
    pub(super) fn new() -> Self {
        Self { stripes: (0..STRIPES).map(|_| Stripe::default()).collect(), hasher: RandomState::default() }
    }

    pub(super) fn of(&self, key: &str) -> &Stripe {
        let index = usize::try_from(self.hasher.hash_one(key) % STRIPES as u64).unwrap_or(0);
        &self.stripes[index]
    }

    /// As if something was told about every key.
    pub(super) fn advance_all(&self) {
        self.stripes.iter().for_each(Stripe::advance);
    }
}

impl Stripe {
    /// While this is held, nothing is told.
    pub(super) fn generation(&self) -> MutexGuard<'_, u64> {
        self.generation.lock()
    }

    pub(super) fn advance(&self) {
        *self.generation() += 1;
        self.told.notify_waiters();
    }

    /// Waits until more was told than at this generation.
    pub(super) async fn told_since(&self, generation: u64) {
        let told = self.told.notified();
        if *self.generation() == generation {
            told.await;
        }
    }
}
