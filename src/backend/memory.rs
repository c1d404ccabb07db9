//! The embedded backend, `memory://`: entries and leases in the memory of this process.
//!
//! A shard holds the entries and the leases of its keys behind one lock, so that every step is atomic; no user code runs
//! under that lock. Time is tokio's, so that a test can pause it. Leases don't count towards the bound on entries: there
//! are as many as there are loads, and those of loads that were lost are swept out now and then.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::RandomState;
use lru::LruCache;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::{Acquired, Cursor, Decide, Decision, Each, Filled, Look, Selection, StepError, Steps, Swept, Token};
use crate::entry::{self, Entry, Found};
use crate::key::Key;
use crate::record::{FoundField, Hash, StoredField};

/// With fewer entries than this in a shard, the bound on all entries would be too uneven over the keys.
const ENTRIES_PER_SHARD: usize = 1024;
const MOST_SHARDS: usize = 64;
const FIRST_SWEEP: usize = 1024;

pub(super) struct Memory {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
}

struct Shard {
    entries: LruCache<Key, Stored>,
    capacity: usize,
    leases: HashMap<Key, Lease>,
    /// How many leases there may be before those that have run out are swept out.
    sweep_at: usize,
}

struct Stored {
    fields: Arc<Vec<FoundField>>,
    expires: Instant,
}

struct Lease {
    token: Token,
    expires: Instant,
}

impl Memory {
    pub(super) fn new(max_entries: NonZeroUsize) -> Self {
        let count = (max_entries.get() / ENTRIES_PER_SHARD).clamp(1, MOST_SHARDS);
        let shard = |index| {
            let capacity = max_entries.get() / count + usize::from(index < max_entries.get() % count);
            Mutex::new(Shard {
                entries: LruCache::unbounded(),
                capacity,
                leases: HashMap::new(),
                sweep_at: FIRST_SWEEP,
            })
        };
        Self { shards: (0..count).map(shard).collect(), hasher: RandomState::default() }
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        let index = usize::try_from(self.hasher.hash_one(key) % self.shards.len() as u64).unwrap_or(0);
        self.shards[index].lock()
    }
}

#[cfg(test)]
impl Memory {
    pub(super) fn leases(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().leases.len()).sum()
    }
}

impl Shard {
    /// Something of the live entry of a key. One whose time is over is removed.
    fn live<R>(&mut self, key: &Key, something: impl FnOnce(&mut Stored, Instant) -> R) -> Option<R> {
        let (stored, now) = (self.entries.get_mut(key)?, Instant::now());
        if stored.expires > now {
            return Some(something(stored, now));
        }
        self.entries.pop(key);
        None
    }

    /// Removes an entry; returns whether it was live.
    fn remove(&mut self, key: &Key) -> bool {
        self.entries.pop(key).is_some_and(|stored| stored.expires > Instant::now())
    }

    fn hash(&mut self, key: &Key) -> Option<Arc<Vec<FoundField>>> {
        self.live(key, |stored, _| stored.fields.clone())
    }

    fn found(&mut self, key: &Key) -> Option<Found> {
        self.live(key, |stored, now| Found {
            entry: Entry::Hash(Hash::Whole(stored.fields.clone())),
            left: Some(stored.expires - now),
        })
    }

    fn put(&mut self, key: &Key, fields: Vec<StoredField>, ttl: Duration) {
        let bytes = |name: Cow<'static, [u8]>| match name {
            Cow::Borrowed(name) => Bytes::from_static(name),
            Cow::Owned(name) => name.into(),
        };
        let fields = fields.into_iter().map(|(name, value)| (bytes(name), value.into())).collect();
        let stored = Stored { fields: Arc::new(fields), expires: Instant::now() + ttl };
        self.entries.put(key.clone(), stored);
        if self.entries.len() > self.capacity {
            self.entries.pop_lru();
        }
    }

    /// Carries out an update, and returns whether it applied changes; `None` if the entry isn't the one that was `seen`.
    fn carry_out(&mut self, key: &Key, seen: Option<&Arc<Vec<FoundField>>>, decision: Decision) -> Option<bool> {
        if self.hash(key).as_ref().map(Arc::as_ptr) != seen.map(Arc::as_ptr) {
            return None;
        }
        self.leases.remove(key);
        let Decision::Apply { changes, ttl } = decision else {
            self.entries.pop(key);
            return Some(false);
        };
        let applied = self.live(key, |stored, now| {
            // A new `Arc` in any case: concurrent updates tell by it that the entry has changed.
            stored.fields = Arc::new(entry::changed(stored.fields.to_vec(), changes));
            if let Some(ttl) = ttl {
                stored.expires = now + ttl;
            }
        });
        Some(applied.is_some())
    }

    /// The live lease of a key. One whose time is over is removed.
    fn lease(&mut self, key: &Key) -> Option<&mut Lease> {
        if self.leases.get(key).is_some_and(|lease| lease.expires <= Instant::now()) {
            self.leases.remove(key);
        }
        self.leases.get_mut(key)
    }

    fn grant(&mut self, key: &Key, lease: Lease) {
        if self.leases.len() >= self.sweep_at {
            self.leases.retain(|_, lease| lease.expires > Instant::now());
            self.sweep_at = FIRST_SWEEP.max(self.leases.len() * 2);
        }
        self.leases.insert(key.clone(), lease);
    }

    fn lease_of(&mut self, key: &Key, token: &Token) -> Option<&mut Lease> {
        self.lease(key).filter(|lease| lease.token == *token)
    }
}

impl Steps for Memory {
    async fn ping(&self, _key: Option<&Key>, _limit: Duration) -> Result<(), StepError> {
        Ok(())
    }

    async fn read(&self, key: &Key, _selection: &Selection, _with_ttl: bool) -> Result<Option<Found>, StepError> {
        Ok(self.shard(key).found(key))
    }

    async fn read_many(
        &self,
        keys: &[&Key],
        _selection: &Selection,
        _with_ttl: bool,
        each: &mut Each<'_>,
    ) -> Result<(), StepError> {
        for (place, key) in keys.iter().enumerate() {
            // The lock is not held while `each` decodes.
            let found = self.shard(key).found(key);
            each(place, found);
        }
        Ok(())
    }

    async fn acquire(&self, key: &Key, token: &mut Token, lease: Duration) -> Result<Acquired, StepError> {
        let mut shard = self.shard(key);
        let held = shard.lease(key).map(|held| (held.expires - Instant::now(), held.token == Token::failed_load()));
        if held.is_none() {
            shard.grant(key, Lease { token: token.clone(), expires: Instant::now() + lease });
        }
        let postponed = held.is_some_and(|(_, failed)| failed);
        let busy_for = held.map(|(left, _)| left).filter(|_| !postponed);
        Ok(Acquired { granted: held.is_none(), found: shard.found(key), busy_for, postponed })
    }

    async fn renew(&self, key: &Key, token: &Token, lease: Duration) -> Result<bool, StepError> {
        let mut shard = self.shard(key);
        let held = shard.lease_of(key, token);
        Ok(held.map(|held| held.expires = Instant::now() + lease).is_some())
    }

    async fn fill(
        &self,
        key: &Key,
        token: &Token,
        fields: Vec<StoredField>,
        ttl: Duration,
    ) -> Result<Filled, StepError> {
        let mut shard = self.shard(key);
        if shard.lease_of(key, token).is_none() {
            return Ok(Filled::Fenced);
        }
        shard.leases.remove(key);
        if fields.is_empty() {
            shard.entries.pop(key);
        } else {
            shard.put(key, fields, ttl);
        }
        Ok(Filled::Accepted)
    }

    async fn abandon(&self, key: &Key, token: &Token) -> Result<(), StepError> {
        let mut shard = self.shard(key);
        if shard.lease_of(key, token).is_some() {
            shard.leases.remove(key);
        }
        Ok(())
    }

    async fn postpone(&self, key: &Key, token: &Token, pause: Duration) -> Result<(), StepError> {
        let mut shard = self.shard(key);
        if let Some(held) = shard.lease_of(key, token) {
            *held = Lease { token: Token::failed_load(), expires: Instant::now() + pause };
        }
        Ok(())
    }

    async fn invalidate(&self, key: &Key) -> Result<bool, StepError> {
        let mut shard = self.shard(key);
        shard.leases.remove(key);
        Ok(shard.remove(key))
    }

    async fn delete(&self, key: &Key, what: Swept) -> Result<bool, StepError> {
        let mut shard = self.shard(key);
        Ok(match what {
            Swept::Leases => shard.leases.remove(key).is_some(),
            Swept::Entries => shard.remove(key),
        })
    }

    async fn update(&self, key: &Key, _selection: &Selection, decide: &mut Decide<'_>) -> Result<bool, StepError> {
        loop {
            let (seen, found) = {
                let mut shard = self.shard(key);
                (shard.hash(key), shard.found(key))
            };
            let decision = decide(found).map_err(StepError::Refused)?;
            let carried_out = self.shard(key).carry_out(key, seen.as_ref(), decision);
            if let Some(applied) = carried_out {
                return Ok(applied);
            }
            tokio::task::yield_now().await;
        }
    }

    async fn look(&self, key: &Key) -> Result<Look, StepError> {
        let mut shard = self.shard(key);
        let lease_ttl = shard.lease(key).map(|lease| lease.expires - Instant::now());
        Ok(Look { found: shard.found(key), lease_ttl })
    }

    async fn sweep(&self, prefix: &str, swept: Swept, _cursor: Cursor) -> Result<Cursor, StepError> {
        for shard in &self.shards {
            let mut shard = shard.lock();
            match swept {
                Swept::Leases => shard.leases.retain(|key, _| key.prefix() != prefix),
                Swept::Entries => {
                    let keys = shard.entries.iter().map(|(key, _)| key).filter(|key| key.prefix() == prefix);
                    let keys: Vec<_> = keys.cloned().collect();
                    keys.iter().for_each(|key| drop(shard.entries.pop(key)));
                }
            }
        }
        Ok(None)
    }
}
