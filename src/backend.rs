//! Where entries live: [`Backend`], and behind it the contract of the protocol's steps.
//!
//! Knows keys, tokens, hashes and lifetimes, nothing of `Cacheable`. Each step is atomic for its key and is told here in
//! full, so that `memory` and `redis` can be read as two ways of keeping the same promises. One place guards every step:
//! it sets the deadline and says in the error what was tried, where, and what to do.

mod connect;
#[cfg(test)]
mod contract;
mod memory;
mod redis;
#[cfg(feature = "__proof")]
mod rig;

use std::fmt;
use std::sync::Arc;
#[cfg(feature = "testing")]
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

pub use self::connect::BackendBuilder;
use self::memory::Memory;
use self::redis::Redis;
#[cfg(feature = "__proof")]
pub use self::rig::{Moment, Point, Rig, Step};
use crate::entry::Entry;
use crate::error::{BoxError, Cause, Error};
use crate::key::Key;
use crate::proof::Guard;
use crate::record::{Changes, StoredField};

/// The name of one lease: 128 random bits, drawn anew for every attempt to acquire one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

impl Token {
    pub(crate) fn new() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }
}

/// The outcome of an attempt to acquire a lease.
#[derive(Debug)]
pub(crate) struct Acquired {
    /// Whether the lease is the caller's now.
    pub(crate) granted: bool,
    /// What was stored, looked at after the lease was granted or refused.
    pub(crate) entry: Option<Entry>,
    /// How long another holder's lease will last, if it isn't renewed.
    pub(crate) busy_for: Option<Duration>,
}

/// What happened to a fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    /// The entry is stored, and the lease used up.
    Accepted,
    /// The lease was no longer the caller's: nothing was written.
    Fenced,
}

/// What an update does to the entry that it was shown.
#[derive(Debug)]
pub(crate) enum Decision {
    /// The entry is a whole record: change these fields (`None` removes one), and its lifetime only if one is given.
    Apply { changes: Changes, ttl: Option<Duration> },
    /// Anything else: delete what is there.
    Drop,
}

/// Looks at an entry and decides; may be called again when the entry has changed in between. An error ends the update.
pub(crate) type Decide<'a> = dyn FnMut(Option<Entry>) -> Result<Decision, Error> + Send + 'a;

/// An entry with its lifetime and its lease.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) entry: Option<Entry>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) lease_ttl: Option<Duration>,
}

/// A step that failed. Unless it was refused, its outcome is unknown.
#[derive(Debug)]
pub(crate) enum StepError {
    /// The backend could not be reached, or refused.
    Failed { advice: &'static str, cause: BoxError },
    /// One round trip of several took longer than `operation_timeout`.
    TimedOut,
    /// [`Decide`] returned an error, before anything was written.
    Refused(Error),
}

/// How long a step may take, and what to do when it takes longer.
#[derive(Clone, Copy)]
struct Deadline {
    limit: Duration,
    advice: &'static str,
}

/// The steps of the protocol. K is the entry at the data key, L the lease at the lock key.
pub(crate) trait Steps {
    /// Fails unless the backend answers.
    async fn ping(&self) -> Result<(), StepError>;

    /// Reads K.
    async fn read(&self, key: &Key) -> Result<Option<Entry>, StepError>;

    /// Sets L to `token` for `lease`, if L is free or is no proper lease; then looks at K.
    async fn acquire(&self, key: &Key, token: &Token, lease: Duration) -> Result<Acquired, StepError>;

    /// Prolongs L, if it still is `token`; returns whether it was.
    async fn renew(&self, key: &Key, token: &Token, lease: Duration) -> Result<bool, StepError>;

    /// If L still is `token`: replaces K whole, with its lifetime, and deletes L.
    async fn fill(
        &self,
        key: &Key,
        token: &Token,
        fields: Vec<StoredField>,
        ttl: Duration,
    ) -> Result<Filled, StepError>;

    /// Deletes L, if it still is `token`.
    async fn abandon(&self, key: &Key, token: &Token) -> Result<(), StepError>;

    /// Deletes K and L; returns whether K was there.
    async fn invalidate(&self, key: &Key) -> Result<bool, StepError>;

    /// Shows K to `decide`, carries out what it decides if K is still the same, and deletes L in any case; returns
    /// whether changes were applied. Starts again, up to `limit`, when K has changed in between.
    async fn update(&self, key: &Key, decide: &mut Decide<'_>) -> Result<bool, StepError>;

    /// Reads K, its lifetime and that of L.
    async fn look(&self, key: &Key) -> Result<Look, StepError>;
}

/// A handle on where entries live. Cheap to clone: all clones share the same connections, or the same memory.
///
/// | URL | entries live |
/// |---|---|
/// | `memory://` | in this process: for tests, examples and single processes. Each `connect` makes a store of its own |
/// | `redis://[user][:password@]host[:port][/db]` | on one Redis (7.0 or later) or Valkey (7.2 or later) server |
/// | `unix:///path/to/redis.sock[?db=1&user=..&pass=..]` | the same, over a Unix socket |
///
/// # Examples
///
/// ```
/// use cache_aside::Backend;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cache_aside::Error> {
/// let url = std::env::var("CACHE_URL").unwrap_or_else(|_| "memory://".to_owned());
/// let backend = Backend::connect(&url).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Backend {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    /// Where the store is, without user or password.
    address: String,
    operation_timeout: Duration,
    #[cfg(feature = "testing")]
    outage: AtomicBool,
    #[cfg(feature = "__proof")]
    rig: Option<Rig>,
}

#[derive(Clone)]
enum Store {
    Memory(Arc<Memory>),
    Redis(Arc<Redis>),
}

impl Shared {
    fn new(store: Store, address: String, operation_timeout: Duration) -> Self {
        Self {
            store,
            address,
            operation_timeout,
            #[cfg(feature = "testing")]
            outage: AtomicBool::new(false),
            #[cfg(feature = "__proof")]
            rig: None,
        }
    }
}

/// Runs one step on whichever store it is, guarded.
macro_rules! step {
    ($backend:ident, $deadline:expr, $action:literal, $key:expr, $store:ident => $step:expr) => {{
        let step = async {
            #[cfg(feature = "__proof")]
            if let Some($store) = $backend.rigged_store() {
                return $step.await;
            }
            match &$backend.shared.store {
                Store::Memory($store) => $step.await,
                Store::Redis($store) => $step.await,
            }
        };
        $backend.guard($deadline, || format!(concat!($action, " {}"), $key), step).await
    }};
}

impl Backend {
    /// Connects to `url` and checks that it answers, with the default settings.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a URL that makes no sense; [`Error::Backend`] or [`Error::Timeout`] when nothing answers
    /// there within [`defaults::CONNECT_TIMEOUT`](crate::defaults::CONNECT_TIMEOUT), or it wants a password.
    ///
    /// # Panics
    ///
    /// On a tokio runtime that was built without time or I/O, as all calls do: `enable_all` switches them on.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::builder(url).connect().await
    }

    /// Prepares a connection to `url` without waiting for it, so that a service starts while its cache is down: reads
    /// bypass the cache until it is there. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a URL that makes no sense, or outside of a tokio runtime.
    pub fn connect_lazy(url: &str) -> Result<Self, Error> {
        Self::builder(url).connect_lazy()
    }

    /// Begins a backend with settings of its own.
    pub fn builder(url: &str) -> BackendBuilder {
        BackendBuilder::new(url)
    }

    /// Makes every operation fail until it is switched off again, as if the backend could not be reached: for tests of
    /// how a service behaves during an outage. Entries stay as they are.
    #[cfg(feature = "testing")]
    pub fn outage(&self, on: bool) {
        self.shared.outage.store(on, Ordering::SeqCst);
    }

    fn new(store: Store, address: String, operation_timeout: Duration) -> Self {
        Self { shared: Arc::new(Shared::new(store, address, operation_timeout)) }
    }

    /// Whether a guard is in its place, as always but in proofs.
    #[cfg_attr(not(feature = "__proof"), expect(unused_variables))]
    pub(crate) fn holds(&self, guard: Guard) -> bool {
        #[cfg(feature = "__proof")]
        if let Some(rig) = &self.shared.rig {
            return rig.holds(guard);
        }
        true
    }

    pub(crate) fn operation_timeout(&self) -> Duration {
        self.shared.operation_timeout
    }

    async fn ping(&self, limit: Duration) -> Result<(), Error> {
        let advice = "check that the address is right and the server is up, or raise connect_timeout";
        step!(self, Deadline { limit, advice }, "connect", "to the cache", store => store.ping())
    }

    pub(crate) async fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        step!(self, self.operation_deadline(), "read", key, store => store.read(key))
    }

    pub(crate) async fn acquire(&self, key: &Key, token: &Token, lease: Duration) -> Result<Acquired, Error> {
        step!(self, self.operation_deadline(), "lease", key, store => store.acquire(key, token, lease))
    }

    pub(crate) async fn renew(&self, key: &Key, token: &Token, lease: Duration) -> Result<bool, Error> {
        step!(self, self.operation_deadline(), "renew the lease of", key, store => store.renew(key, token, lease))
    }

    pub(crate) async fn fill(
        &self,
        key: &Key,
        token: &Token,
        fields: Vec<StoredField>,
        ttl: Duration,
    ) -> Result<Filled, Error> {
        step!(self, self.operation_deadline(), "fill", key, store => store.fill(key, token, fields, ttl))
    }

    pub(crate) async fn abandon(&self, key: &Key, token: &Token) -> Result<(), Error> {
        step!(self, self.operation_deadline(), "abandon the lease of", key, store => store.abandon(key, token))
    }

    pub(crate) async fn invalidate(&self, key: &Key) -> Result<bool, Error> {
        step!(self, self.operation_deadline(), "invalidate", key, store => store.invalidate(key))
    }

    /// Boxed here, where no type of the user's is involved: else the user's own futures would nest too deep for the
    /// compiler's default limit.
    pub(crate) fn update<'a>(
        &'a self,
        key: &'a Key,
        limit: Duration,
        decide: &'a mut Decide<'_>,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        let advice = "try again or invalidate: others keep changing the entry, or the server is slow";
        async move { step!(self, Deadline { limit, advice }, "update", key, store => store.update(key, decide)) }
            .boxed()
    }

    pub(crate) async fn look(&self, key: &Key) -> Result<Look, Error> {
        step!(self, self.operation_deadline(), "look at", key, store => store.look(key))
    }

    /// Runs a step under its deadline, and turns its failure into what the user is told.
    async fn guard<R>(
        &self,
        deadline: Deadline,
        action: impl Fn() -> String,
        step: impl Future<Output = Result<R, StepError>>,
    ) -> Result<R, Error> {
        #[cfg(feature = "testing")]
        if self.shared.outage.load(Ordering::SeqCst) {
            return Err(self.failed(action(), "switch the outage off again", "an outage is simulated".into()));
        }
        check_runtime()?;
        match tokio::time::timeout(deadline.limit, step).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(StepError::Failed { advice, cause })) => Err(self.failed(action(), advice, cause)),
            Ok(Err(StepError::Refused(error))) => Err(error),
            Ok(Err(StepError::TimedOut)) => Err(self.timed_out(&action(), self.operation_deadline())),
            Err(_elapsed) => {
                if let Store::Redis(redis) = &self.shared.store {
                    redis.timed_out(deadline.limit);
                }
                Err(self.timed_out(&action(), deadline))
            }
        }
    }

    fn operation_deadline(&self) -> Deadline {
        let advice = "check that the server is up and not overloaded, or raise operation_timeout";
        Deadline { limit: self.operation_timeout(), advice }
    }

    fn timed_out(&self, action: &str, deadline: Deadline) -> Error {
        let Deadline { limit, advice } = deadline;
        Error::Timeout { action: format!("the attempt to {action} at {}", self.shared.address), limit, advice }
    }

    fn failed(&self, action: String, advice: &'static str, cause: BoxError) -> Error {
        Error::Backend { action, address: self.shared.address.clone(), advice, source: Cause::new(cause) }
    }
}

/// Outside of a tokio runtime its timers and tasks would panic. Whether the runtime has timers, it doesn't tell.
pub(crate) fn check_runtime() -> Result<(), Error> {
    let within = Handle::try_current();
    within
        .map(drop)
        .map_err(|_| Error::config("there is no tokio runtime here: call this inside `#[tokio::main]` or `block_on`"))
}

/// The address, without passwords: `redis://127.0.0.1:6379`.
impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shared.address)
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Backend").field(&self.shared.address).finish()
    }
}
