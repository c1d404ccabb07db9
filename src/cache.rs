//! The public face: [`Cache`] and the operations that users call. Each documents its promise, erases the types and
//! delegates to [`Core`], which is compiled once for all structs.

mod builder;
mod core;
mod fields;
mod inspect;
mod load;
mod loading;
mod many;
mod outcome;
mod policy;
mod writes;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

pub use self::builder::CacheBuilder;
pub(crate) use self::core::{Core, Outgoing, ToStore};
pub use self::inspect::{EntryState, Inspection, Pending};
pub use self::load::{Load, Loaded, Loader};
pub use self::loading::{LoadingCache, Warmed};
pub(crate) use self::outcome::Bypass;
pub use self::outcome::{Lookup, Outcome};
pub(crate) use self::policy::Policy;
pub use self::policy::{OnOutage, UpdateTtl};
use crate::backend::Backend;
use crate::counters::ShardedArc;
use crate::error::{BoxError, Error};
use crate::read::{self, Answer, Request, erase};
use crate::record::{CacheKey, Cacheable, IdParts, InvalidId, Key, typed};
use crate::stats::Stats;

/// A typed cache of `T` records over a [`Backend`].
///
/// Cheap to clone: a cache and its clones share their statistics and the loads that are under way. Make one for each
/// struct when the service starts, and share it.
///
/// **There is no `put`.** A record that a caller read a while ago may be older than an invalidation that has happened
/// since, and nothing could detect that. So records enter the cache in one way only: [`get`](Self::get) loads them under a
/// lease, which every invalidation revokes.
///
/// # The promise
///
/// Provided that there is one Redis primary, that each load reads in a snapshot that began after the loader was called, and never
/// in a transaction that has written, and that all writers call [`invalidate`](Self::invalidate) after their commit: a `get` that
/// starts after `invalidate` has returned never returns the older value, and a returned record is never partial. [The protocol]
/// lists what breaks this. A [near cache](crate::NearCache) promises less about the writes of other processes.
///
/// A query on a connection of its own reads in such a snapshot. A transaction that was begun before the loader was called doesn't,
/// in PostgreSQL at `REPEATABLE READ` or `SERIALIZABLE`, and in SQLite: it goes on reading the rows of its first query. One that
/// has written reads its own rows, which may be rolled back.
///
/// [The protocol]: crate::docs::protocol#what-breaks-it
///
/// # Examples
///
/// ```
/// use cache_aside::{Backend, BoxError, Cache, Cacheable};
///
/// #[derive(Debug, Clone, PartialEq, Cacheable)]
/// #[cacheable(namespace = "billing", ttl = "30s", not_found_ttl = "2s")]
/// struct Product {
///     #[cacheable(id)]
///     id: String,
///     name: String,
///     stock: u32,
/// }
/// # #[derive(Clone)] struct Db;
/// # impl Db { async fn find(&self, id: String) -> Result<Option<Product>, BoxError> {
/// #     Ok(Some(Product { id, name: "Sourdough Loaf".into(), stock: 42 })) } }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// # let db = Db;
/// let products: Cache<Product> = Cache::new(Backend::connect("memory://").await?);
///
/// let primary = db.clone();
/// let product = products.get("p-001", move |id| async move { primary.find(id).await }).await?;
/// assert_eq!(product.unwrap().stock, 42);
///
/// products.update_field("p-001", Product::FIELDS.stock, 41).await?;
/// products.invalidate("p-001").await?;
/// # Ok(())
/// # }
/// ```
#[doc(alias("put", "insert"))]
pub struct Cache<T: Cacheable> {
    core: ShardedArc<Core>,
    of: PhantomData<fn() -> T>,
}

impl<T: Cacheable> Cache<T> {
    /// Makes a cache with the names and lifetimes that the struct's attributes set, and the [`defaults`](crate::defaults) for
    /// everything else.
    pub fn new(backend: Backend) -> Self {
        Self::builder(backend).build_unchecked()
    }

    /// Starts building a cache with other settings.
    pub fn builder(backend: Backend) -> CacheBuilder<T> {
        CacheBuilder::new(backend)
    }

    /// Reads a record through the cache: from its entry, or from `loader`, which runs at most once per miss across all
    /// tasks and processes, unless it fails or leaves nothing to store. `Ok(None)` from the loader means that the primary has no such record; that is cached too, for
    /// `not_found_ttl`.
    ///
    /// The loader reads the primary in a snapshot that began after the loader was called, and never in a transaction that has
    /// written: see [the promise](Self#the-promise). It may outlive this call, so it has to own what it uses: write `let db = db.clone();` before the call, and
    /// `move` on the closure. If its error type can't be inferred, write `Ok::<_, BoxError>(..)`. It runs in a task of its own:
    /// values of `tokio::task_local!` don't travel there by themselves. Take the value before the call, and in the loader write
    /// `NAME.scope(value, async move { .. })`.
    ///
    /// A loader may get other records. If it gets its own, or one whose loader gets its own, that is an error at once.
    ///
    /// When the cache is out of reach, the loader still runs, once per key and process, unless `on_outage` says otherwise.
    /// The same applies while a failed invalidation of the record is [pending](Self::pending).
    ///
    /// A record whose id can't be part of a key, because a part of it is empty or it has more than 1,024 bytes as written in a key,
    /// is loaded around the cache, and `invalidate` and updates of it return `false`. A record with another id than the one that
    /// was asked for is returned, but not cached. Fields with `skip` are `Default` in any case, hit or not. All of these are counted
    /// in [`Stats`], and logged.
    ///
    /// The future owns everything but a borrowed id, so `tokio::spawn(products.get("p-001", loader))` works.
    ///
    /// Redis: a hit is `HMGET` or `HGETALL`, one round trip. A miss adds a round trip of `SET NX PX` and `EXISTS`, and a
    /// script for the fill. If another process keeps records past their TTL and this one doesn't, a hit on an entry of that
    /// process takes one more round trip.
    ///
    /// # Errors
    ///
    /// - [`Error::Load`], [`Error::LoadPanicked`] or [`Error::Timeout`] if the loader failed. All callers that waited for it
    ///   get the same error.
    /// - [`Error::LoadCycle`] if the loader gets its own record, or one whose load waits for this one.
    /// - [`Error::Timeout`] if the cache is out of reach and too many loads wait for their turn.
    /// - The cache's own error if it is out of reach and `on_outage` is [`OnOutage::Fail`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future doesn't stop the load, which fills the cache for the next caller. If the cache is not `enabled`,
    /// it drops the loader.
    #[doc(alias("get_or_load", "fetch", "get_or_insert_with"))]
    pub fn get<K, F, Fut, E>(
        &self,
        id: K,
        loader: F,
    ) -> impl Future<Output = Result<Option<Arc<T>>, Error>> + Send + use<T, K, F, Fut, E>
    where
        K: CacheKey<T::Id>,
        F: FnOnce(T::Id) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Option<T>, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        self.answer(id, |_key, id| plain(move || loader(id)), Kind::Get, value)
    }

    /// Like [`get`](Self::get), but skips the [near cache](crate::NearCache): for reads that must see the writes of every
    /// process. The near cache keeps the result. A record past its TTL that [`get`](Self::get) may serve is served here too: no
    /// write has invalidated it.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    ///
    /// # Cancel safety
    ///
    /// As [`get`](Self::get).
    pub fn get_fresh<K, F, Fut, E>(
        &self,
        id: K,
        loader: F,
    ) -> impl Future<Output = Result<Option<Arc<T>>, Error>> + Send + use<T, K, F, Fut, E>
    where
        K: CacheKey<T::Id>,
        F: FnOnce(T::Id) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Option<T>, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        self.answer(id, |_key, id| plain(move || loader(id)), Kind::Fresh, value)
    }

    /// Like [`get`](Self::get), but also reports where the record came from.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    ///
    /// # Cancel safety
    ///
    /// As [`get`](Self::get).
    pub fn lookup<K, F, Fut, E>(
        &self,
        id: K,
        loader: F,
    ) -> impl Future<Output = Result<Lookup<T>, Error>> + Send + use<T, K, F, Fut, E>
    where
        K: CacheKey<T::Id>,
        F: FnOnce(T::Id) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Option<T>, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        self.answer(id, |_key, id| plain(move || loader(id)), Kind::Lookup, Lookup::from)
    }

    /// Loads a record anew, in place of the one that is cached, which other gets are served meanwhile. If the load fails, the old
    /// record stays. It never returns what was loaded before this call: it waits for loads that are under way, and calls share
    /// a load only if it began after both.
    ///
    /// If the record could not be stored, or may not have been, it is [invalidated](Self::invalidate), so that no older one
    /// stays. The versions that the struct's `also_invalidates` lists are invalidated after a successful load.
    ///
    /// Redis: as a miss of [`get`](Self::get), and `DEL` where something is invalidated.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get) if the load fails. As [`invalidate`](Self::invalidate) if it has succeeded, but the old record could
    /// not be replaced or invalidated.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future doesn't stop the load, nor what follows it.
    #[doc(alias("reload"))]
    pub fn refresh<'a, K, F, Fut, E>(&self, id: K, loader: F) -> BoxFuture<'a, Result<Option<Arc<T>>, Error>>
    where
        K: CacheKey<T::Id> + 'a,
        F: FnOnce(T::Id) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Option<T>, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        self.refreshed(id, |_key, id| plain(move || loader(id)))
    }

    /// Sets whether the cache is used at all, from now on and for all clones: for feature flags, and for incidents. While it isn't,
    /// every get goes to its loader. Invalidations and updates are still carried out, for the sake of other processes, and so that
    /// nothing old is there when the cache is used again. See [`CacheBuilder::enabled`].
    pub fn set_enabled(&self, enabled: bool) {
        self.core.set_enabled(enabled);
    }

    /// Returns the statistics of this cache and its clones in this process.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// Resets all statistics to zero.
    pub fn reset_stats(&self) {
        self.core.reset_stats();
    }

    #[cfg(feature = "__proof")]
    pub(crate) fn flights(&self) -> usize {
        self.core.flights.count() + self.core.bypasses.count() + self.core.refreshing.count()
    }

    #[expect(clippy::needless_pass_by_value, reason = "calls that need only the key consume their id here")]
    fn key(&self, id: impl CacheKey<T::Id>) -> Result<Key, InvalidId> {
        self.core.keys.key(&id)
    }

    fn answer<K, L, A, F>(
        &self,
        id: K,
        loader: L,
        kind: Kind,
        convert: F,
    ) -> impl Future<Output = Result<A, Error>> + Send + use<T, K, L, A, F>
    where
        F: FnOnce(Answer) -> A + Send,
        K: CacheKey<T::Id>,
        L: FnOnce(&Key, T::Id) -> read::Loader + Send + 'static,
    {
        let (core, mut call) = (self.core.shard(), Call::<T, _, _>::new(id, loader));
        async move {
            if kind != Kind::Fresh
                && let Some(record) = core.near_hit(&mut |out| call.write_id(out))
            {
                return Ok(convert(Answer::near(record)));
            }
            core.get(&mut call, None, kind == Kind::Lookup).await.map(convert)
        }
    }

    fn refreshed<'a, K, L>(&self, id: K, loader: L) -> BoxFuture<'a, Result<Option<Arc<T>>, Error>>
    where
        K: CacheKey<T::Id> + 'a,
        L: FnOnce(&Key, T::Id) -> read::Loader + Send + 'static,
    {
        let (core, mut call) = (self.core.shard(), Call::<T, _, _>::new(id, loader));
        async move { core.refresh(&mut call).await.map(value) }.boxed()
    }
}

const TAKEN_ONCE: &str = "each id of a call is loaded at most once";

/// The gets that read a whole record.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Get,
    /// Skips the near cache.
    Fresh,
    /// Measures the read of the cache.
    Lookup,
}

/// The id and the loader of a get.
struct Call<T, K, L> {
    id_and_loader: Option<(K, L)>,
    of: PhantomData<fn() -> T>,
}

impl<T, K, L> Call<T, K, L> {
    fn new(id: K, loader: L) -> Self {
        Self { id_and_loader: Some((id, loader)), of: PhantomData }
    }
}

impl<T, K, L> Request for Call<T, K, L>
where
    T: Cacheable,
    K: CacheKey<T::Id>,
    L: FnOnce(&Key, T::Id) -> read::Loader + Send + 'static,
{
    fn write_id(&mut self, out: &mut dyn IdParts) -> fmt::Result {
        self.id_and_loader.as_ref().map_or(Err(fmt::Error), |(id, _)| id.write_parts(out))
    }

    fn loader(&mut self, key: &Key) -> read::Loader {
        let (id, loader) = self.id_and_loader.take().expect(TAKEN_ONCE);
        loader(key, id.into_id())
    }
}

/// A loader that isn't told about its load.
fn plain<T, F, Fut, E>(loader: F) -> read::Loader
where
    T: Cacheable,
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<Option<T>, E>> + Send + 'static,
    E: Into<BoxError> + 'static,
{
    read::Loader::new(|_given| erase(loader(), read::Loaded::new))
}

/// The record of an answer, with its type restored.
#[inline]
fn value<T: Cacheable>(answer: Answer) -> Option<Arc<T>> {
    answer.record.map(typed)
}

impl<T: Cacheable> Clone for Cache<T> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone(), of: PhantomData }
    }
}

impl<T: Cacheable> fmt::Debug for Cache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("backend", &self.core.backend)
            .field("keys", &self.core.keys)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
