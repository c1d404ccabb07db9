//! Where entries live: [`Backend`], and what it does on whichever store it has.
//!
//! Knows keys, tokens, hashes and lifetimes, nothing of `Cacheable`. What a store has to do is told in `steps`; every step
//! passes `guard`; a write that fails is remembered by `pending`.

mod breaker;
mod connect;
#[cfg(test)]
#[path = "../tests/contract/mod.rs"]
mod contract;
mod deadline;
mod guard;
mod memory;
mod pending;
mod redis;
#[cfg(feature = "__proof")]
mod rig;
mod steps;
mod tracked;

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
#[cfg(feature = "testing")]
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use self::breaker::Breaker;
pub use self::connect::BackendBuilder;
pub(crate) use self::guard::check_runtime;
use self::guard::{Call, WhileOpen};
use self::memory::Memory;
use self::pending::{Pending, Write};
use self::redis::Redis;
#[cfg(feature = "__proof")]
pub use self::rig::{Moment, Point, Rig, Step};
pub(crate) use self::steps::{
    ALL, Acquired, Cursor, Decide, Decision, Each, Filled, Look, Position, Selection, StepError, Steps, Swept, Token,
};
use self::tracked::Tracked;
use crate::background::Background;
use crate::entry::Found;
use crate::error::{Cause, Error};
use crate::key::Key;
use crate::meter::BackendMeter;
use crate::proof::Guard;
use crate::record::StoredField;
use crate::repeats::Repeats;

/// A handle on where entries live. Cheap to clone: all clones share the same connections, or the same memory.
///
/// | URL | entries live |
/// |---|---|
/// | `memory://` | in this process: for tests, examples and single processes. Each `connect` makes a store of its own |
/// | `redis://[user][:password@]host[:port][/db]` | on one Redis (7.0 or later) or Valkey (7.2 or later) server |
/// | `rediss://[user][:password@]host[:port][/db]` | the same, over TLS, with the feature `tls` |
/// | `unix:///path/to/redis.sock[?db=1&user=..&pass=..]` | the same, over a Unix socket |
/// | `redis+cluster://[user][:password@]host[:port],host[:port]..` | on the cluster that these servers belong to; `rediss+cluster://` over TLS, with the feature `tls` |
/// | `redis+sentinel://[user][:password@]host[:port],host[:port]/name[/db][?sentinel_user=..&sentinel_password=..]` | on the master of this name by the sentinels at these hosts, port 26379 without one; a failover is followed. User, password and database are the master's. |
/// | `rediss+sentinel://..` | the same, over TLS to the sentinels and to the master, with the feature `tls` |
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
    settings: Settings,
    /// Of all servers, or of those that have none of their own.
    breaker: Breaker,
    pending: Arc<Pending>,
    /// There once a near cache is over it.
    tracked: OnceLock<Tracked>,
    meter: BackendMeter,
    repeats: Repeats,
    /// Tries again what is pending.
    retry: Background,
    /// Permits for the keys of batches that are read.
    batches: Semaphore,
    #[cfg(feature = "testing")]
    outage: AtomicBool,
    #[cfg(feature = "__proof")]
    rig: Option<Rig>,
}

/// How long one step of a sweep may take, as a multiple of `operation_timeout`.
const TRIPS_OF_SWEEP: u32 = 8;

/// How many keys of batches are read at a time: enough to keep connections busy, and few enough that their replies fit the
/// CPU's caches, and that a single get behind them is not held up.
const MOST_BATCHED: u32 = 1_024;

/// The settings of a backend. Some are of one kind of store alone.
#[derive(Debug, Clone, Copy)]
struct Settings {
    operation_timeout: Duration,
    connect_timeout: Duration,
    update_connections: usize,
    max_entries: usize,
    breaker_threshold: u32,
    breaker_pause: Duration,
    max_pending_invalidations: usize,
    close_timeout: Duration,
    heartbeat_interval: Duration,
    heartbeat_timeout: Duration,
}

#[derive(Clone)]
enum Store {
    Memory(Arc<Memory>),
    Redis(Arc<Redis>),
}

impl Shared {
    fn new(store: Store, address: String, settings: Settings) -> Self {
        let meter = BackendMeter::new(&address);
        let breaker = Breaker::new(address.clone(), &address, settings.breaker_threshold, settings.breaker_pause);
        Self {
            store,
            address,
            settings,
            breaker,
            pending: Arc::new(Pending::new(settings.max_pending_invalidations)),
            tracked: OnceLock::new(),
            meter,
            repeats: Repeats::default(),
            retry: Background::default(),
            batches: Semaphore::new(MOST_BATCHED as usize),
            #[cfg(feature = "testing")]
            outage: AtomicBool::new(false),
            #[cfg(feature = "__proof")]
            rig: None,
        }
    }

    /// The guard that a proof has taken out.
    fn without(&self) -> Option<Guard> {
        #[cfg(feature = "__proof")]
        if let Some(rig) = &self.rig {
            return rig.without;
        }
        None
    }
}

/// Runs one step on whichever store it is, guarded. One that is named has hooks in a rigged backend.
///
/// Pinned here: a future that is passed by value takes its memory once more at each level.
macro_rules! step {
    ($backend:ident, $call:expr, $($hooked:ident)? $action:literal, $key:expr, $store:ident => $step:expr) => {{
        let call = &$call;
        let step = pin!(async {
            $(
                #[cfg(feature = "__proof")]
                if let Some(rig) = &$backend.shared.rig {
                    let step = async {
                        match &$backend.shared.store {
                            Store::Memory(store) => { let $store = rig::Rigged { rig, store }; $step.await }
                            Store::Redis(store) => { let $store = rig::Rigged { rig, store }; $step.await }
                        }
                    };
                    return Box::pin(rig.around(Step::$hooked, $key, call, step)).await;
                }
            )?
            match &$backend.shared.store {
                Store::Memory($store) => $step.await,
                Store::Redis($store) => $step.await,
            }
        });
        $backend.guard(call, || format!(concat!($action, " {}"), $key), step).await
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
    /// how a service behaves during an outage. Entries stay as they are; near caches are emptied, and not used.
    #[cfg(feature = "testing")]
    pub fn outage(&self, on: bool) {
        self.shared.outage.store(on, Ordering::SeqCst);
        if let Some(tracking) = self.tracking() {
            tracking.cut(on);
        }
        self.shared.pending.try_now.notify_one();
    }

    /// Whether a guard is in its place, as always but in proofs.
    pub(crate) fn holds(&self, guard: Guard) -> bool {
        self.shared.without() != Some(guard)
    }

    /// The token of one attempt to acquire a lease.
    pub(crate) fn new_token(&self) -> Token {
        #[cfg(feature = "__proof")]
        if let Some(rig) = &self.shared.rig
            && !self.holds(Guard::FreshTokens)
        {
            return rig.token.clone();
        }
        Token::new()
    }

    /// The repeated warnings.
    pub(crate) fn repeats(&self) -> &Repeats {
        &self.shared.repeats
    }

    pub(crate) fn operation_timeout(&self) -> Duration {
        self.shared.settings.operation_timeout
    }

    /// Asks for an answer: of the server that has the key, if one is given.
    async fn ping(&self, key: Option<&Key>, limit: Duration) -> Result<(), Error> {
        let advice = "check that the server is up and the URL right, rediss:// for TLS and redis:// without, or allow it more time";
        let call = Call { limit, advice, while_open: WhileOpen::Passes, ..self.read_call(key) };
        step!(self, call, "connect", "to the cache", store => store.ping(key, limit))
    }

    /// Reads an entry, with how long it will be there if that is asked for.
    pub(crate) async fn read(&self, key: &Key, selection: &Selection, with_ttl: bool) -> Result<Option<Found>, Error> {
        step!(self, self.read_call(key), Read "read", key, store => store.read(key, selection, with_ttl))
    }

    /// The same of several entries, in one go from each server. Returns the places of those whose server failed; one that
    /// `each` didn't get either is to be read by itself.
    pub(crate) async fn read_many(
        &self,
        keys: &[&Key],
        selection: &Selection,
        with_ttl: bool,
        each: &mut Each<'_>,
    ) -> Vec<(usize, Error)> {
        #[cfg(feature = "__proof")]
        if self.shared.rig.is_some() {
            // Each is read by itself, so that it passes its hooks.
            return Vec::new();
        }
        if keys.is_empty() {
            return Vec::new();
        }
        let _turn = self.turn(keys.len()).await;
        let each = Mutex::new(each);
        let reads = self.by_server(keys).into_iter().map(async |places| {
            let of_server: Vec<_> = places.iter().map(|place| keys[*place]).collect();
            let mut each = |at: usize, found| {
                let mut each = each.lock();
                each(places[at], found);
            };
            let call = self.read_call(of_server[0]);
            let read =
                step!(self, call, "read", of_server[0], store => store.read_many(&of_server, selection, with_ttl, &mut each));
            read.err().map(|error| (places, error))
        });
        let failures = join_all(reads).await.into_iter().flatten();
        failures.flat_map(|(places, error)| places.into_iter().map(move |place| (place, error.clone()))).collect()
    }

    /// Waits for permission to read so many keys. Gives up before long: a batch that nobody polls would keep its permits for ever.
    async fn turn(&self, keys: usize) -> Option<SemaphorePermit<'_>> {
        check_runtime().ok()?;
        let permits = u32::try_from(keys).map_or(MOST_BATCHED, |keys| keys.min(MOST_BATCHED));
        timeout(self.operation_timeout() / 4, self.shared.batches.acquire_many(permits)).await.ok()?.ok()
    }

    /// The places of the keys by the servers that have them, as far as that is known.
    fn by_server(&self, keys: &[&Key]) -> Vec<Vec<usize>> {
        let mut servers = BTreeMap::<_, Vec<_>>::new();
        for (place, key) in keys.iter().enumerate() {
            let server = self.breaker_of_server(key).as_ref().map(Arc::as_ptr);
            servers.entry(server).or_default().push(place);
        }
        servers.into_values().collect()
    }

    /// Tries to get a lease. `token` is the one that was used in the end, also after an error.
    pub(crate) async fn acquire(&self, key: &Key, token: &mut Token, lease: Duration) -> Result<Acquired, Error> {
        step!(self, self.read_call(key), Acquire "lease", key, store => store.acquire(key, token, lease))
    }

    pub(crate) async fn renew(&self, key: &Key, token: &Token, lease: Duration) -> Result<bool, Error> {
        step!(self, self.read_call(key), Renew "renew the lease of", key, store => store.renew(key, token, lease))
    }

    #[expect(clippy::manual_async_fn, reason = "an async fn's arguments take their memory twice")]
    pub(crate) fn fill<'a>(
        &'a self,
        key: &'a Key,
        token: &'a Token,
        fields: Vec<StoredField>,
        ttl: Duration,
    ) -> impl Future<Output = Result<Filled, Error>> + Send + 'a {
        async move { step!(self, self.read_call(key), Fill "fill", key, store => store.fill(key, token, fields, ttl)) }
    }

    pub(crate) async fn abandon(&self, key: &Key, token: &Token) -> Result<(), Error> {
        step!(self, self.read_call(key), Abandon "abandon the lease of", key, store => store.abandon(key, token))
    }

    pub(crate) async fn postpone(&self, key: &Key, token: &Token, pause: Duration) -> Result<(), Error> {
        step!(self, self.read_call(key), Postpone "postpone the load of", key, store => store.postpone(key, token, pause))
    }

    /// Removes an entry and its lease. Unless it ends well the key is [pending](Self::is_pending): also when the future is
    /// dropped before it was polled.
    pub(crate) fn invalidate(&self, key: Key) -> impl Future<Output = Result<bool, Error>> + '_ {
        let write = Write::new(self, key);
        async move {
            let was_there = self.remove(&write.key, self.write_call(&write.key)).await?;
            write.invalidated();
            Ok(was_there)
        }
    }

    async fn remove(&self, key: &Key, call: Call<'_>) -> Result<bool, Error> {
        step!(self, call, Invalidate "invalidate", key, store => store.invalidate(key))
    }

    /// Removes all entries with this prefix, and revokes the loads that are under way.
    async fn sweep(&self, prefix: &str) -> Result<(), Error> {
        // First the leases: else a load that is under way could fill behind the sweep's back.
        let call = Call { limit: self.operation_timeout() * TRIPS_OF_SWEEP, ..self.write_call(None) };
        for swept in [Swept::Leases, Swept::Entries] {
            let mut cursor = None;
            loop {
                let next = step!(self, call, "sweep", prefix, store => store.sweep(prefix, swept, cursor));
                cursor = next?;
                if cursor.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Changes an entry in place. If that fails, the key is [pending](Self::is_pending) until it has been invalidated.
    ///
    /// Boxed here, where no type of the user's is involved: else the user's own futures would nest too deep for the
    /// compiler's default limit.
    pub(crate) fn update<'a>(
        &'a self,
        key: &'a Key,
        selection: &'a Selection,
        limit: Duration,
        decide: &'a mut Decide<'_>,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        let advice = "it will be invalidated: others keep changing the entry, or the server is slow";
        let call = Call { outer_limit: Some(limit), advice, ..self.write_call(key) };
        async move {
            let write = Write::new(self, key.clone());
            let mut decide = |found| {
                self.measure_connections();
                decide(found)
            };
            let updated = step!(self, call, Update "update", key, store => store.update(key, selection, &mut decide));
            self.measure_connections();
            if let Ok(_) | Err(Error::InvalidId { .. }) = updated {
                write.done();
            }
            updated
        }
        .boxed()
    }

    fn measure_connections(&self) {
        if let Store::Redis(redis) = &self.shared.store {
            self.shared.meter.update_connections(|| redis.update_connections());
        }
    }

    pub(crate) async fn look(&self, key: &Key) -> Result<Look, Error> {
        step!(self, self.read_call(key), Look "look at", key, store => store.look(key))
    }

    /// What a read is told while the invalidation of its key has not been applied.
    pub(crate) fn pending_error(&self, key: &Key) -> Error {
        let advice = "an invalidation that failed is tried again until it is applied";
        self.failed(format!("read {key}"), advice, Cause::new("it may be older than the primary"))
    }
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
