//! The embedded backend, `memory://`: entries and leases in the memory of this process.
//!
//! A shard holds the entries and the leases of its keys behind one lock, so every step is atomic; no user code runs
//! under that lock. Time is tokio's, so that a test can pause it. Leases don't count towards the bound on entries: there
//! are as many as there are loads, and the leases of lost loads are removed now and then.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::RandomState;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lru::LruCache;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::{
    Acquired, Attempt, Decision, Each, EntryAndLease, Filled, Held, KeyKind, Mark, Store, StoreResult, StoreUpdate,
    Token, Touched,
};
use crate::record::{Entry, Found, FoundField, Hash, Key, Meta, Selection, StoredField, entry};

/// In smaller shards, the bound on entries would depend too much on how the keys hash.
const ENTRIES_PER_SHARD: usize = 1024;
const MOST_SHARDS: usize = 64;
const FIRST_PURGE: usize = 1024;

pub(super) struct Memory {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
}

struct Shard {
    entries: LruCache<Key, Stored>,
    capacity: usize,
    leases: HashMap<Key, Lease>,
    /// When there are this many leases, the expired ones are removed.
    purge_at: usize,
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
                purge_at: FIRST_PURGE,
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
    /// Applies `f` to the live entry of a key. An entry whose time is over is removed.
    fn with_live<R>(&mut self, key: &Key, f: impl FnOnce(&mut Stored, Instant) -> R) -> Option<R> {
        let (stored, now) = (self.entries.get_mut(key)?, Instant::now());
        if stored.expires > now {
            return Some(f(stored, now));
        }
        self.entries.pop(key);
        None
    }

    /// Removes an entry, and returns whether it was live.
    fn remove(&mut self, key: &Key) -> bool {
        self.entries.pop(key).is_some_and(|stored| stored.expires > Instant::now())
    }

    fn hash(&mut self, key: &Key) -> Option<Arc<Vec<FoundField>>> {
        self.with_live(key, |stored, _| stored.fields.clone())
    }

    fn found(&mut self, key: &Key) -> Option<Found> {
        self.with_live(key, |stored, now| Found {
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

    /// Carries out an update's decision, unless the entry isn't the one that was `seen`.
    fn commit(&mut self, key: &Key, seen: Option<&Arc<Vec<FoundField>>>, decision: Decision) -> Attempt<bool> {
        if self.hash(key).as_ref().map(Arc::as_ptr) != seen.map(Arc::as_ptr) {
            return Attempt::Again;
        }
        self.leases.remove(key);
        let Decision::Apply { changes, ttl } = decision else {
            self.entries.pop(key);
            return Attempt::Done(false);
        };
        let applied = self.with_live(key, |stored, now| {
            // Always a new `Arc`: by its address, concurrent updates find out that the entry has changed.
            stored.fields = Arc::new(entry::changed(stored.fields.to_vec(), changes));
            if let Some(ttl) = ttl {
                stored.expires = now + ttl;
            }
        });
        Attempt::Done(applied.is_some())
    }

    /// The live lease of a key. A lease whose time is over is removed.
    fn lease(&mut self, key: &Key) -> Option<&mut Lease> {
        if self.leases.get(key).is_some_and(|lease| lease.expires <= Instant::now()) {
            self.leases.remove(key);
        }
        self.leases.get_mut(key)
    }

    fn grant(&mut self, key: &Key, lease: Lease) {
        if self.leases.len() >= self.purge_at {
            self.leases.retain(|_, lease| lease.expires > Instant::now());
            self.purge_at = FIRST_PURGE.max(self.leases.len() * 2);
        }
        self.leases.insert(key.clone(), lease);
    }

    fn lease_of(&mut self, key: &Key, token: &Token) -> Option<&mut Lease> {
        self.lease(key).filter(|lease| lease.token == *token)
    }

    /// Replaces what lies at L if it still is `from`; returns whether it was.
    fn replace(&mut self, key: &Key, from: &Token, to: Token, ttl: Duration) -> bool {
        let held = self.lease_of(key, from);
        held.map(|held| *held = Lease { token: to, expires: Instant::now() + ttl }).is_some()
    }

    /// Removes the lease if it still is `token`; returns whether it was.
    fn release(&mut self, key: &Key, token: &Token) -> bool {
        self.lease_of(key, token).is_some() && self.leases.remove(key).is_some()
    }
}

struct Update<'a> {
    memory: &'a Memory,
    key: &'a Key,
    seen: Option<Arc<Vec<FoundField>>>,
}

impl StoreUpdate for Update<'_> {
    fn watch(&mut self) -> BoxFuture<'_, StoreResult<Attempt<Option<Found>>>> {
        async {
            let mut shard = self.memory.shard(self.key);
            self.seen = shard.hash(self.key);
            Ok(Attempt::Done(shard.found(self.key)))
        }
        .boxed()
    }

    fn commit(&mut self, decision: Decision) -> BoxFuture<'_, StoreResult<Attempt<bool>>> {
        async { Ok(self.memory.shard(self.key).commit(self.key, self.seen.as_ref(), decision)) }.boxed()
    }
}

impl Store for Memory {
    async fn ping(&self, _key: Option<&Key>, _limit: Duration) -> StoreResult<()> {
        Ok(())
    }

    async fn read(&self, key: &Key, _selection: &Selection, _with_ttl: bool) -> StoreResult<Option<Found>> {
        Ok(self.shard(key).found(key))
    }

    async fn read_many(
        &self,
        keys: &[&Key],
        _selection: &Selection,
        _with_ttl: bool,
        each: &mut Each<'_>,
    ) -> StoreResult<()> {
        for (place, key) in keys.iter().enumerate() {
            // `each` decodes, so the lock is not held meanwhile.
            let found = self.shard(key).found(key);
            each(place, found);
        }
        Ok(())
    }

    async fn acquire(&self, key: &Key, token: &mut Token, lease: Duration) -> StoreResult<Acquired> {
        let mut shard = self.shard(key);
        let held = shard.lease(key).map(|lease| Held { by: lease.token.clone(), left: lease.expires - Instant::now() });
        if held.is_none() {
            shard.grant(key, Lease { token: token.clone(), expires: Instant::now() + lease });
        }
        Ok(Acquired { granted: held.is_none(), found: shard.found(key), held })
    }

    async fn take_over(&self, key: &Key, mark: Mark, token: &Token, lease: Duration) -> StoreResult<Acquired> {
        let mut shard = self.shard(key);
        let granted = shard.replace(key, &Token::of(mark), token.clone(), lease);
        Ok(Acquired { granted, found: shard.found(key), held: None })
    }

    async fn renew(&self, key: &Key, token: &Token, lease: Duration) -> StoreResult<bool> {
        Ok(self.shard(key).lease_of(key, token).map(|held| held.expires = Instant::now() + lease).is_some())
    }

    async fn fill(&self, key: &Key, token: &Token, fields: Vec<StoredField>, ttl: Duration) -> StoreResult<Filled> {
        let mut shard = self.shard(key);
        if fields.is_empty() {
            if !shard.replace(key, token, Token::of(Mark::Unstored), ttl) {
                return Ok(Filled::Fenced);
            }
            shard.entries.pop(key);
        } else {
            if !shard.release(key, token) {
                return Ok(Filled::Fenced);
            }
            shard.put(key, fields, ttl);
        }
        Ok(Filled::Accepted)
    }

    async fn touch(&self, key: &Key, token: &Token, meta: Option<Meta>, ttl: Duration) -> StoreResult<Touched> {
        let mut shard = self.shard(key);
        if shard.lease_of(key, token).is_none() {
            return Ok(Touched::Fenced);
        }
        let touched = shard.with_live(key, |stored, now| {
            if let Some(meta) = meta {
                // A new `Arc`, as for any change.
                stored.fields = Arc::new(entry::with_meta(stored.fields.to_vec(), meta));
            }
            stored.expires = now + ttl;
        });
        if touched.is_none() {
            return Ok(Touched::Gone);
        }
        shard.release(key, token);
        Ok(Touched::Accepted)
    }

    async fn abandon(&self, key: &Key, token: &Token) -> StoreResult<()> {
        self.shard(key).release(key, token);
        Ok(())
    }

    async fn mark(&self, key: &Key, token: &Token, mark: Mark, ttl: Duration) -> StoreResult<()> {
        self.shard(key).replace(key, token, Token::of(mark), ttl);
        Ok(())
    }

    async fn invalidate(&self, key: &Key) -> StoreResult<bool> {
        let mut shard = self.shard(key);
        shard.leases.remove(key);
        Ok(shard.remove(key))
    }

    async fn delete(&self, key: &Key, kind: KeyKind) -> StoreResult<bool> {
        let mut shard = self.shard(key);
        Ok(match kind {
            KeyKind::Lease => shard.leases.remove(key).is_some(),
            KeyKind::Entry => shard.remove(key),
        })
    }

    fn update<'a>(&'a self, key: &'a Key, _selection: &'a Selection) -> Box<dyn StoreUpdate + 'a> {
        Box::new(Update { memory: self, key, seen: None })
    }

    async fn look(&self, key: &Key) -> StoreResult<EntryAndLease> {
        let mut shard = self.shard(key);
        let lease = shard.lease(key).filter(|lease| lease.token != Token::of(Mark::Unstored));
        let lease_ttl = lease.map(|lease| lease.expires - Instant::now());
        Ok(EntryAndLease { found: shard.found(key), lease_ttl })
    }

    async fn delete_prefix(&self, prefix: &str, kind: KeyKind) -> StoreResult<u64> {
        let delete = |shard: &Mutex<Shard>| {
            let mut shard = shard.lock();
            match kind {
                KeyKind::Lease => {
                    let before = shard.leases.len();
                    shard.leases.retain(|key, _| key.prefix() != prefix);
                    before - shard.leases.len()
                }
                KeyKind::Entry => {
                    let keys = shard.entries.iter().map(|(key, _)| key).filter(|key| key.prefix() == prefix);
                    let keys: Vec<_> = keys.cloned().collect();
                    keys.iter().filter(|key| shard.remove(key)).count()
                }
            }
        };
        Ok(self.shards.iter().map(|shard| delete(shard) as u64).sum())
    }
}
