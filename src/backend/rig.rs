//! A backend for proofs: it calls a hook before and after each step on an entry, and can go without one guard of the protocol.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::call::{CallOptions, on_store};
use super::deadline::within;
use super::{
    Acquired, AnyStore, Attempt, Decision, Filled, KeyKind, Mark, Store, StoreError, StoreUpdate, Token, Touched,
};
use crate::proof::Guard;
use crate::record::{ALL, Found, Key, Meta, StoredField};

/// The settings of a rigged backend.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "never printed")]
pub struct Rig {
    pub(super) without: Option<Guard>,
    splits_invalidations: bool,
    hook: Option<Arc<Hook>>,
    /// Without [`Guard::FreshTokens`], the token of all attempts.
    pub(super) token: Token,
}

type Hook = dyn Fn(Failpoint) -> BoxFuture<'static, ()> + Send + Sync;

/// A point at which the hook is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failpoint {
    /// The step.
    pub step: Step,
    /// How far the step has got.
    pub phase: Phase,
    /// The entry's key.
    pub key: String,
}

/// A step of the contract between backends and stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is named like the method, which is documented")]
pub enum Step {
    Read,
    Acquire,
    Renew,
    Fill,
    Abandon,
    TakeOver,
    Touch,
    Mark,
    Invalidate,
    Update,
    Look,
}

/// How far a step has got when the hook is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Before the step is sent.
    Before,
    /// Within an update: after it has read the entry, and before it writes. Within an invalidation that is split, or goes without
    /// [`Guard::LeaseFirst`]: between its two commands.
    Within,
    /// After the step's reply.
    After,
}

impl Rig {
    /// A rig that changes nothing.
    #[expect(clippy::new_without_default, reason = "each rig has a token of its own, for one process")]
    pub fn new() -> Self {
        Self { without: None, splits_invalidations: false, hook: None, token: Token::new() }
    }

    /// Takes one guard out.
    pub fn without(mut self, guard: Guard) -> Self {
        self.without = Some(guard);
        self
    }

    /// Sends the two commands of an invalidation one after the other, and calls the hook between them.
    pub fn split_invalidations(mut self) -> Self {
        self.splits_invalidations = true;
        self
    }

    /// Calls `hook` at each failpoint, and awaits its future.
    pub fn hook(mut self, hook: impl Fn(Failpoint) -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Self {
        self.hook = Some(Arc::new(hook));
        self
    }

    fn enforces(&self, guard: Guard) -> bool {
        self.without != Some(guard)
    }

    async fn reach(&self, step: Step, phase: Phase, key: &Key) {
        if let Some(hook) = &self.hook {
            hook(Failpoint { step, phase, key: key.to_string() }).await;
        }
    }

    pub(super) fn update<'a>(
        &'a self,
        store: &'a AnyStore,
        key: &'a Key,
        update: Box<dyn StoreUpdate + 'a>,
    ) -> Box<dyn StoreUpdate + 'a> {
        Box::new(RiggedUpdate { rig: self, store, key, update, has_begun: false, is_absent: false })
    }

    /// Runs a step between two calls of the hook. The hook may delay it, which the store's own timeout doesn't see, so the limit is
    /// enforced here.
    pub(super) async fn around<R>(
        &self,
        step: Step,
        key: &Key,
        options: &CallOptions<'_>,
        run: impl Future<Output = Result<R, StoreError>>,
    ) -> Result<R, StoreError> {
        let run = async {
            self.reach(step, Phase::Before, key).await;
            let reply = run.await;
            self.reach(step, Phase::After, key).await;
            reply
        };
        within(options.limit, run).await.unwrap_or(Err(StoreError::TimedOut))
    }
}

/// A store in a rigged backend. These steps have a guard that can be taken out; all others are the store's own.
pub(super) struct Rigged<'a, S> {
    pub(super) rig: &'a Rig,
    pub(super) store: &'a Arc<S>,
}

impl<S> Deref for Rigged<'_, S> {
    type Target = S;

    fn deref(&self) -> &S {
        self.store
    }
}

impl<S: Store> Rigged<'_, S> {
    pub(super) async fn acquire(&self, key: &Key, token: &mut Token, lease: Duration) -> Result<Acquired, StoreError> {
        let acquired = self.store.acquire(key, token, lease).await?;
        let is_shown = !acquired.granted || self.rig.enforces(Guard::Recheck);
        Ok(Acquired { found: acquired.found.filter(|_| is_shown), ..acquired })
    }

    pub(super) async fn fill(
        &self,
        key: &Key,
        token: &Token,
        fields: Vec<StoredField>,
        ttl: Duration,
    ) -> Result<Filled, StoreError> {
        if self.rig.enforces(Guard::TokenCheck) {
            return self.store.fill(key, token, fields, ttl).await;
        }
        let own = self.take_lease(key, ttl).await?;
        self.store.fill(key, &own, fields, ttl).await
    }

    pub(super) async fn touch(
        &self,
        key: &Key,
        token: &Token,
        meta: Option<Meta>,
        ttl: Duration,
    ) -> Result<Touched, StoreError> {
        if self.rig.enforces(Guard::TokenCheck) {
            return self.store.touch(key, token, meta, ttl).await;
        }
        let own = self.take_lease(key, ttl).await?;
        self.store.touch(key, &own, meta, ttl).await
    }

    pub(super) async fn take_over(
        &self,
        key: &Key,
        mark: Mark,
        token: &Token,
        lease: Duration,
    ) -> Result<Acquired, StoreError> {
        if self.rig.enforces(Guard::MarkCheck) {
            return self.store.take_over(key, mark, token, lease).await;
        }
        let mut own = token.clone();
        self.store.delete(key, KeyKind::Lease).await?;
        self.store.acquire(key, &mut own, lease).await
    }

    /// Takes the lease away from its holder.
    async fn take_lease(&self, key: &Key, lease: Duration) -> Result<Token, StoreError> {
        let mut own = Token::new();
        while !self.store.acquire(key, &mut own, lease).await?.granted {
            self.store.delete(key, KeyKind::Lease).await?;
        }
        Ok(own)
    }

    pub(super) async fn invalidate(&self, key: &Key) -> Result<bool, StoreError> {
        if !self.rig.enforces(Guard::Revocation) {
            return self.store.delete(key, KeyKind::Entry).await;
        }
        let within = self.rig.reach(Step::Invalidate, Phase::Within, key);
        if !self.rig.enforces(Guard::LeaseFirst) {
            let was_there = self.store.delete(key, KeyKind::Entry).await?;
            within.await;
            self.store.delete(key, KeyKind::Lease).await?;
            return Ok(was_there);
        }
        if self.rig.splits_invalidations {
            self.store.delete(key, KeyKind::Lease).await?;
            within.await;
            return self.store.delete(key, KeyKind::Entry).await;
        }
        self.store.invalidate(key).await
    }
}

/// An update in a rigged backend: calls the hook, and can go without [`Guard::AtomicRevocation`].
struct RiggedUpdate<'a> {
    rig: &'a Rig,
    store: &'a AnyStore,
    key: &'a Key,
    update: Box<dyn StoreUpdate + 'a>,
    has_begun: bool,
    /// Without the guard: whether the entry was absent.
    is_absent: bool,
}

impl StoreUpdate for RiggedUpdate<'_> {
    fn watch(&mut self) -> BoxFuture<'_, Result<Attempt<Option<Found>>, StoreError>> {
        async {
            if !std::mem::replace(&mut self.has_begun, true) {
                self.rig.reach(Step::Update, Phase::Before, self.key).await;
            }
            // Without the guard, one step finds that the entry is absent, and another one revokes the lease. The first can't be a
            // watch, which deletes the lease while its slot is migrating.
            self.is_absent = !self.rig.enforces(Guard::AtomicRevocation)
                && on_store!(self.store, store => store.read(self.key, &ALL, false).await)?.is_none();
            if self.is_absent { Ok(Attempt::Done(None)) } else { self.update.watch().await }
        }
        .boxed()
    }

    fn commit(&mut self, decision: Decision) -> BoxFuture<'_, Result<Attempt<bool>, StoreError>> {
        async {
            self.rig.reach(Step::Update, Phase::Within, self.key).await;
            let committed = if self.is_absent {
                let deleted = on_store!(self.store, store => store.delete(self.key, KeyKind::Lease).await);
                deleted.map(|_was_there| Attempt::Done(false))
            } else {
                self.update.commit(decision).await
            };
            if !matches!(committed, Ok(Attempt::Again)) {
                self.rig.reach(Step::Update, Phase::After, self.key).await;
            }
            committed
        }
        .boxed()
    }
}
