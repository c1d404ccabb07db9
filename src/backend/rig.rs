//! A store for proofs: the steps of another, with a hook at each, and with guards that can be taken out.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::{
    ALL, Acquired, Backend, Cursor, Decide, Each, Filled, Look, Selection, Shared, StepError, Steps, Store, Swept,
    Token,
};
use crate::entry::{Entry, Found};
use crate::key::Key;
use crate::proof::Guard;
use crate::record::StoredField;

/// What is different in a rigged backend.
#[derive(Clone)]
pub struct Rig {
    without: Option<Guard>,
    splits_invalidations: bool,
    hook: Option<Arc<Hook>>,
    /// The token of all attempts, without [`Guard::FreshTokens`].
    token: Token,
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

    pub(super) fn rigged_store(&self) -> Option<Rigged<'_>> {
        let rig = self.shared.rig.as_ref()?;
        Some(Rigged { rig, store: &self.shared.store })
    }
}

/// Writes that the contract doesn't have, because they check nothing.
pub(super) trait Bare {
    /// Stores an entry, whoever holds the lease.
    async fn put_entry(&self, key: &Key, fields: Vec<StoredField>, ttl: Duration) -> Result<(), StepError>;

    /// Deletes the entry alone; returns whether it was there.
    async fn delete_entry(&self, key: &Key) -> Result<bool, StepError>;

    /// Deletes the lease alone.
    async fn delete_lease(&self, key: &Key) -> Result<(), StepError>;
}

/// The steps of a store, as the rig changes them.
pub(super) struct Rigged<'a> {
    rig: &'a Rig,
    store: &'a Store,
}

macro_rules! on {
    ($store:expr, $name:ident => $step:expr) => {
        match $store {
            Store::Memory($name) => $step.await,
            Store::Redis($name) => $step.await,
        }
    };
}

impl Rig {
    pub(super) fn holds(&self, guard: Guard) -> bool {
        self.without != Some(guard)
    }

    pub(super) fn lacks(&self) -> Option<Guard> {
        self.without
    }

    async fn reach(&self, step: Step, moment: Moment, key: &Key) {
        if let Some(hook) = &self.hook {
            hook(Point { step, moment, key: key.to_string() }).await;
        }
    }

    /// Runs a step between its two hooks.
    async fn around<R>(&self, step: Step, key: &Key, run: impl Future<Output = R>) -> R {
        self.reach(step, Moment::Before, key).await;
        let reply = run.await;
        self.reach(step, Moment::After, key).await;
        reply
    }

    fn token<'a>(&'a self, fresh: &'a Token) -> &'a Token {
        if self.holds(Guard::FreshTokens) { fresh } else { &self.token }
    }
}

impl Rigged<'_> {
    /// The lease first, as the store does it, unless that guard is out.
    async fn invalidate_in_two_steps(&self, key: &Key) -> Result<bool, StepError> {
        let within = self.rig.reach(Step::Invalidate, Moment::Within, key);
        if self.rig.holds(Guard::LeaseFirst) {
            on!(self.store, store => store.delete_lease(key))?;
            within.await;
            return on!(self.store, store => store.delete_entry(key));
        }
        let was_there = on!(self.store, store => store.delete_entry(key))?;
        within.await;
        on!(self.store, store => store.delete_lease(key))?;
        Ok(was_there)
    }

    /// The absent entry is seen in one step, the lease revoked in another.
    async fn update_in_two_steps(
        &self,
        key: &Key,
        selection: &Selection,
        decide: &mut Decide<'_>,
    ) -> Result<bool, StepError> {
        if on!(self.store, store => store.read(key, &ALL))?.is_some() {
            return on!(self.store, store => store.update(key, selection, decide));
        }
        self.rig.reach(Step::Update, Moment::Within, key).await;
        on!(self.store, store => store.delete_lease(key))?;
        Ok(false)
    }

    async fn update_with_hook(
        &self,
        key: &Key,
        selection: &Selection,
        decide: &mut Decide<'_>,
    ) -> Result<bool, StepError> {
        let mut decide = |found| {
            if self.rig.hook.is_some() && Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread {
                let reached = self.rig.reach(Step::Update, Moment::Within, key);
                tokio::task::block_in_place(|| Handle::current().block_on(reached));
            }
            decide(found)
        };
        on!(self.store, store => store.update(key, selection, &mut decide))
    }
}

impl Steps for Rigged<'_> {
    async fn ping(&self, key: Option<&Key>, limit: Duration) -> Result<(), StepError> {
        on!(self.store, store => store.ping(key, limit))
    }

    async fn read(&self, key: &Key, selection: &Selection) -> Result<Option<Entry>, StepError> {
        let run = async { on!(self.store, store => store.read(key, selection)) };
        self.rig.around(Step::Read, key, run).await
    }

    async fn read_with_ttl(&self, key: &Key, selection: &Selection) -> Result<Option<Found>, StepError> {
        let run = async { on!(self.store, store => store.read_with_ttl(key, selection)) };
        self.rig.around(Step::Read, key, run).await
    }

    async fn read_many(
        &self,
        _keys: &[&Key],
        _selection: &Selection,
        _with_ttl: bool,
        _each: &mut Each<'_>,
    ) -> Result<(), StepError> {
        // Each is read by itself, so that it passes its hooks.
        Ok(())
    }

    async fn acquire(&self, key: &Key, token: &mut Token, lease: Duration) -> Result<Acquired, StepError> {
        let mut shared = self.rig.token.clone();
        let token = if self.rig.holds(Guard::FreshTokens) { token } else { &mut shared };
        let run = async { on!(self.store, store => store.acquire(key, token, lease)) };
        let mut acquired = self.rig.around(Step::Acquire, key, run).await?;
        if acquired.granted && !self.rig.holds(Guard::Recheck) {
            acquired.found = None;
        }
        Ok(acquired)
    }

    async fn renew(&self, key: &Key, token: &Token, lease: Duration) -> Result<bool, StepError> {
        let token = self.rig.token(token);
        let run = async { on!(self.store, store => store.renew(key, token, lease)) };
        self.rig.around(Step::Renew, key, run).await
    }

    async fn fill(
        &self,
        key: &Key,
        token: &Token,
        fields: Vec<StoredField>,
        ttl: Duration,
    ) -> Result<Filled, StepError> {
        let token = self.rig.token(token);
        let run = async {
            if self.rig.holds(Guard::TokenCheck) {
                return on!(self.store, store => store.fill(key, token, fields, ttl));
            }
            on!(self.store, store => store.put_entry(key, fields, ttl))?;
            on!(self.store, store => store.delete_lease(key))?;
            Ok(Filled::Accepted)
        };
        self.rig.around(Step::Fill, key, run).await
    }

    async fn abandon(&self, key: &Key, token: &Token) -> Result<(), StepError> {
        let token = self.rig.token(token);
        let run = async { on!(self.store, store => store.abandon(key, token)) };
        self.rig.around(Step::Abandon, key, run).await
    }

    async fn postpone(&self, key: &Key, token: &Token, pause: Duration) -> Result<(), StepError> {
        let token = self.rig.token(token);
        let run = async { on!(self.store, store => store.postpone(key, token, pause)) };
        self.rig.around(Step::Postpone, key, run).await
    }

    async fn invalidate(&self, key: &Key) -> Result<bool, StepError> {
        let run = async {
            if !self.rig.holds(Guard::Revocation) {
                return on!(self.store, store => store.delete_entry(key));
            }
            if self.rig.splits_invalidations || !self.rig.holds(Guard::LeaseFirst) {
                return self.invalidate_in_two_steps(key).await;
            }
            on!(self.store, store => store.invalidate(key))
        };
        self.rig.around(Step::Invalidate, key, run).await
    }

    async fn update(&self, key: &Key, selection: &Selection, decide: &mut Decide<'_>) -> Result<bool, StepError> {
        let run = async {
            if self.rig.holds(Guard::AtomicRevocation) {
                return self.update_with_hook(key, selection, decide).await;
            }
            self.update_in_two_steps(key, selection, decide).await
        };
        self.rig.around(Step::Update, key, run).await
    }

    async fn look(&self, key: &Key) -> Result<Look, StepError> {
        let run = async { on!(self.store, store => store.look(key)) };
        self.rig.around(Step::Look, key, run).await
    }

    async fn sweep(&self, prefix: &str, swept: Swept, cursor: Cursor) -> Result<Cursor, StepError> {
        on!(self.store, store => store.sweep(prefix, swept, cursor))
    }
}
