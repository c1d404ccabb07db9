//! A backend for proofs: with a hook before and after each step on an entry, and with guards that can be taken out.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::deadline::within;
use super::guard::Call;
use super::{ALL, Acquired, Backend, Decide, Filled, Selection, Shared, StepError, Steps, Swept, Token};
use crate::key::Key;
use crate::proof::Guard;
use crate::record::StoredField;

/// What is different in a rigged backend.
#[derive(Clone)]
pub struct Rig {
    pub(super) without: Option<Guard>,
    splits_invalidations: bool,
    hook: Option<Arc<Hook>>,
    /// The token of all attempts, without [`Guard::FreshTokens`].
    pub(super) token: Token,
}

type Hook = dyn Fn(Point) -> BoxFuture<'static, ()> + Send + Sync;

/// Where a hook is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// The step.
    pub step: Step,
    /// When.
    pub moment: Moment,
    /// The entry's key.
    pub key: String,
}

/// A step of the backend's contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Reads the entry, with its lifetime or without.
    Read,
    /// Tries to get the lease, and looks at the entry.
    Acquire,
    /// Prolongs the lease.
    Renew,
    /// Stores a loaded entry.
    Fill,
    /// Gives the lease back.
    Abandon,
    /// Puts the mark of a failed load in the place of the lease.
    Postpone,
    /// Removes the entry and the lease.
    Invalidate,
    /// Changes the entry in place.
    Update,
    /// Shows the entry, its lifetime and its lease.
    Look,
}

/// When a hook is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Moment {
    /// Before the step is sent.
    Before,
    /// Within an update: it has seen the entry, and has written nothing yet. Not on a runtime of one thread. Within an
    /// invalidation that is split, or that lacks [`Guard::LeaseFirst`]: between its two commands.
    Within,
    /// After the step's reply.
    After,
}

impl Rig {
    /// Nothing is different.
    #[expect(clippy::new_without_default, reason = "a rig is for one process, and holds what others must not share")]
    pub fn new() -> Self {
        Self { without: None, splits_invalidations: false, hook: None, token: Token::new() }
    }

    /// Takes one guard out.
    pub fn without(mut self, guard: Guard) -> Self {
        self.without = Some(guard);
        self
    }

    /// Invalidations send their two commands one by one, with a hook between them, in place of the store's own step.
    pub fn split_invalidations(mut self) -> Self {
        self.splits_invalidations = true;
        self
    }

    /// Waits for the future of `hook` at each point.
    pub fn hook(mut self, hook: impl Fn(Point) -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Self {
        self.hook = Some(Arc::new(hook));
        self
    }
}

impl fmt::Debug for Rig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rig").field("without", &self.without).finish_non_exhaustive()
    }
}

impl Backend {
    /// The same store, rigged.
    #[doc(hidden)]
    pub fn rigged(&self, rig: Rig) -> Self {
        let Shared { store, address, settings, .. } = &*self.shared;
        Self { shared: Arc::new(Shared { rig: Some(rig), ..Shared::new(store.clone(), address.clone(), *settings) }) }
    }
}

impl Rig {
    fn holds(&self, guard: Guard) -> bool {
        self.without != Some(guard)
    }

    async fn reach(&self, step: Step, moment: Moment, key: &Key) {
        if let Some(hook) = &self.hook {
            hook(Point { step, moment, key: key.to_string() }).await;
        }
    }

    /// Runs a step between its two hooks. These may hold it up, so its limit is kept here, where the store can't see to it.
    pub(super) async fn around<R>(
        &self,
        step: Step,
        key: &Key,
        call: &Call<'_>,
        run: impl Future<Output = Result<R, StepError>>,
    ) -> Result<R, StepError> {
        let run = async {
            self.reach(step, Moment::Before, key).await;
            let reply = run.await;
            self.reach(step, Moment::After, key).await;
            reply
        };
        match call.outer_limit {
            Some(_) => run.await,
            None => within(call.limit, run).await.unwrap_or(Err(StepError::TimedOut)),
        }
    }
}

/// A store in a rigged backend. The steps here have a guard that may be out; all others are the store's own.
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

impl<S: Steps> Rigged<'_, S> {
    pub(super) async fn acquire(&self, key: &Key, token: &mut Token, lease: Duration) -> Result<Acquired, StepError> {
        let acquired = self.store.acquire(key, token, lease).await?;
        let is_shown = !acquired.granted || self.rig.holds(Guard::Recheck);
        Ok(Acquired { found: acquired.found.filter(|_| is_shown), ..acquired })
    }

    pub(super) async fn fill(
        &self,
        key: &Key,
        token: &Token,
        fields: Vec<StoredField>,
        ttl: Duration,
    ) -> Result<Filled, StepError> {
        if self.rig.holds(Guard::TokenCheck) {
            return self.store.fill(key, token, fields, ttl).await;
        }
        // Whoever holds the lease loses it.
        let mut own = Token::new();
        while !self.store.acquire(key, &mut own, ttl).await?.granted {
            self.store.delete(key, Swept::Leases).await?;
        }
        self.store.fill(key, &own, fields, ttl).await
    }

    pub(super) async fn invalidate(&self, key: &Key) -> Result<bool, StepError> {
        if !self.rig.holds(Guard::Revocation) {
            return self.store.delete(key, Swept::Entries).await;
        }
        let within = self.rig.reach(Step::Invalidate, Moment::Within, key);
        if !self.rig.holds(Guard::LeaseFirst) {
            let was_there = self.store.delete(key, Swept::Entries).await?;
            within.await;
            self.store.delete(key, Swept::Leases).await?;
            return Ok(was_there);
        }
        if self.rig.splits_invalidations {
            self.store.delete(key, Swept::Leases).await?;
            within.await;
            return self.store.delete(key, Swept::Entries).await;
        }
        self.store.invalidate(key).await
    }

    pub(super) async fn update(
        &self,
        key: &Key,
        selection: &Selection,
        decide: &mut Decide<'_>,
    ) -> Result<bool, StepError> {
        let within = || self.rig.reach(Step::Update, Moment::Within, key);
        let is_atomic = self.rig.holds(Guard::AtomicRevocation);
        if !is_atomic && self.store.read(key, &ALL, false).await?.is_none() {
            // The absent entry is seen in one step, the lease revoked in another.
            within().await;
            self.store.delete(key, Swept::Leases).await?;
            return Ok(false);
        }
        let may_block = Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread;
        let waits = is_atomic && may_block && self.rig.hook.is_some();
        let mut decide = |found| {
            if waits {
                tokio::task::block_in_place(|| Handle::current().block_on(within()));
            }
            decide(found)
        };
        self.store.update(key, selection, &mut decide).await
    }
}
