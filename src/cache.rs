//! The public face: [`Cache`] and the operations that users call. Each says what it promises, leaves the types behind, and
//! hands over to the core, which is compiled once for all structs.

mod builder;
mod call;
mod core;
mod inspect;
mod loading;
mod outcome;
mod pending;
mod policy;
mod writes;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

pub use self::builder::CacheBuilder;
use self::call::{Call, Different, Selected};
pub(crate) use self::core::Core;
pub use self::inspect::{EntryState, Inspection};
pub use self::loading::LoadingCache;
pub use self::outcome::{Lookup, Outcome};
pub use self::pending::Pending;
pub(crate) use self::policy::Policy;
pub use self::policy::{OnOutage, UpdateTtl};
use crate::backend::Backend;
use crate::error::{BoxError, Error};
use crate::read::{Answer, Asked, Batch, Loading, Options, erase};
use crate::record::{CacheKey, Cacheable, Key, Projection, shape, typed};
use crate::sharded::ShardedArc;
use crate::stats::Stats;

/// A typed cache of `T` records over a [`Backend`].
///
/// Cheap to clone; statistics and loads under way belong to a cache and its clones. Make one for each struct when the
/// service starts, and share it.
///
/// **There is no `put`.** A record that a caller read a while ago may be older than an invalidation that came since, and
/// nothing could tell. So records get into the cache in one way only: loaded by [`get`](Self::get) under a lease that
/// every invalidation revokes.
///
/// # The promise
///
/// With one Redis primary, a loader that reads the primary database at read-committed or better, and all writers calling
/// [`invalidate`](Self::invalidate) after their commit: a `get` that starts after that call has returned never returns
/// the older value, and a returned record is never partial. What breaks it is told in `docs/protocol.md`. A
/// [near cache](crate::NearCache) promises less of what other processes write.
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
pub struct Cache<T: Cacheable> {
    core: ShardedArc<Core>,
    of: PhantomData<fn() -> T>,
}

impl<T: Cacheable> Cache<T> {
    /// Makes a cache with the names and lifetimes of the struct's attributes, and the defaults for the rest.
    pub fn new(backend: Backend) -> Self {
        Self::builder(backend).build_unchecked()
    }

    /// Begins a cache with settings of its own.
    pub fn builder(backend: Backend) -> CacheBuilder<T> {
        CacheBuilder::new(backend)
    }

    /// Binds a loader, so that calls need only the id.
    ///
    /// # Examples
    ///
    /// ```
    /// # use cache_aside::{Backend, BoxError, Cache, Cacheable};
    /// # #[derive(Debug, Cacheable)]
    /// # struct Product { #[cacheable(id)] id: String }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// # let products: Cache<Product> = Cache::new(Backend::connect("memory://").await?);
    /// let products = products.with_loader(|id| async { Ok::<_, BoxError>(Some(Product { id })) });
    /// assert!(products.get("p-001").await?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_loader<F, Fut, E>(&self, loader: F) -> LoadingCache<T>
    where
        F: Fn(T::Id) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Option<T>, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        LoadingCache::new(self.clone(), loader)
    }

    /// Reads a record through the cache: from its entry, or from `loader`, which runs at most once per miss over every
    /// task and every process. `Ok(None)` from the loader means that the primary has no such record, which is cached
    /// too, for `not_found_ttl`.
    ///
    /// The loader may outlive this call, so it owns what it uses: `let db = db.clone();` before, `move` on the closure.
    /// Where its error type can't be inferred, write `Ok::<_, BoxError>(..)`.
    ///
    /// When the cache is out of reach, the loader is run all the same, once per key and process, unless `on_outage` says
    /// otherwise. So it is while a failed invalidation of the record is [pending](Self::pending). A loader must not get its
    /// own id from the same cache: it would wait for itself until `load_timeout`.
    ///
    /// The future owns what it needs, but for a borrowed id: `tokio::spawn(products.get("p-001", loader))` works.
    ///
    /// Redis: `HMGET` or `HGETALL` on a hit, one round trip. On a miss `SET NX PX`, `EXISTS` in one more, and a script
    /// for the fill. Where another process has [`stale_if_error`](CacheBuilder::stale_if_error) and this one hasn't,
    /// a hit on its entries takes one round trip more.
    ///
    /// # Errors
    ///
    /// [`Error::Load`], [`Error::LoadPanicked`] or [`Error::Timeout`] when the loader failed, for all who waited for it;
    /// [`Error::Timeout`] when the cache is out of reach and too many loads wait for their turn; with
    /// [`OnOutage::Fail`] the cache's own error; [`Error::InvalidId`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the load under way: it fills the cache for the next caller. In a cache that is not
    /// `enabled` it drops the loader.
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
        self.answer(id, |id| erase(loader(id)), Options::default()).map(value)
    }

    /// Is [`get`](Self::get), but goes past the [near cache](crate::NearCache): for reads that must see what any process has
    /// written. What it finds is kept there.
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
        let fresh = Options { is_fresh: true, ..Options::default() };
        self.answer(id, |id| erase(loader(id)), fresh).map(value)
    }

    /// Is [`get`](Self::get), and tells how the record was come by.
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
        let timed = Options { is_timed: true, ..Options::default() };
        self.answer(id, |id| erase(loader(id)), timed).map(|answer| answer.map(Lookup::from))
    }

    /// Reads some fields of a record through the cache: as [`get`](Self::get), but a hit reads only these. A loaded record
    /// brings them too, and is stored whole. `None` when the primary has no such record.
    ///
    /// `fields` is a tuple of handles, or a single one; so is what comes of it. The record's other fields aren't looked
    /// at: that one of them is missing or malformed, a whole read alone finds out.
    ///
    /// Redis: `HMGET` of these fields, one of the id, and `~meta`; on a miss as [`get`](Self::get).
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    ///
    /// # Cancel safety
    ///
    /// As [`get`](Self::get).
    ///
    /// # Examples
    ///
    /// ```
    /// # use cache_aside::{Backend, BoxError, Cache, Cacheable};
    /// # #[derive(Debug, Cacheable)]
    /// # struct Product { #[cacheable(id)] id: String, name: String, stock: u32 }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// # let products: Cache<Product> = Cache::new(Backend::connect("memory://").await?);
    /// # let load = |id| async move { Ok::<_, BoxError>(Some(Product { id, name: "Sourdough Loaf".into(), stock: 42 })) };
    /// let fields = Product::FIELDS;
    /// let found = products.get_fields("p-001", (fields.name, fields.stock), load).await?;
    /// assert_eq!(found, Some(("Sourdough Loaf".to_owned(), 42)));
    /// assert_eq!(products.get_fields("p-001", fields.stock, load).await?, Some(42));
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_fields<K, P, F, Fut, E>(
        &self,
        id: K,
        fields: P,
        loader: F,
    ) -> impl Future<Output = Result<Option<P::Values>, Error>> + Send + use<T, K, P, F, Fut, E>
    where
        K: CacheKey<T::Id>,
        P: Projection<T>,
        F: FnOnce(T::Id) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Option<T>, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        let core = self.core.shard();
        let mut call = Call::<T, _, _>::new(id, |id| erase(loader(id)));
        async move {
            let mut selected = Selected::<T, P>::new(fields);
            let answer = core.get(&mut call, Some(&mut selected), Options::default()).await?;
            Ok(selected.values.or_else(|| answer.record.map(|record| fields.of(shape::borrow(&record)))))
        }
    }

    /// Gets many records at once; the results have the order and the number of the ids, which may repeat.
    ///
    /// All are read in one round trip, in a cluster one to each server. `loader` is called once with the ids that are
    /// missing and that this call is the one to load, and returns their records in any order: an id without a record is one
    /// that the primary doesn't have. What others are loading, in this process or another, is waited for; should they fail
    /// to, or have begun before this call, `loader` is called again for these. Each record is leased, stored, fenced and
    /// counted for itself, and has [the promise](Self#the-promise) for itself.
    ///
    /// More than 1,024 different ids are read and loaded in parts of so many, one after the other.
    ///
    /// Redis: as so many [`get`](Self::get)s, sent together.
    ///
    /// # Errors
    ///
    /// Each id's as of [`get`](Self::get). When `loader` fails, all that it was to load have its error, the others none. So
    /// it is when it returns a record that it wasn't asked for, for those it has returned none for.
    ///
    /// # Cancel safety
    ///
    /// As [`get`](Self::get).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// # use cache_aside::{Backend, BoxError, Cache, Cacheable};
    /// # #[derive(Debug, Cacheable)]
    /// # struct Product { #[cacheable(id)] id: u64, stock: u32 }
    /// # #[derive(Clone)] struct Db;
    /// # impl Db { async fn find_all(&self, ids: Vec<u64>) -> Result<Vec<Product>, BoxError> {
    /// #     Ok(ids.into_iter().filter(|id| *id < 9).map(|id| Product { id, stock: 42 }).collect()) } }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// # let db = Db;
    /// # let products: Cache<Product> = Cache::new(Backend::connect("memory://").await?);
    /// let found = products.get_many([7, 8, 9, 7], move |ids| {
    ///     let db = db.clone();
    ///     async move { db.find_all(ids).await } // SELECT .. WHERE id = ANY($1)
    /// });
    /// let found: Vec<Option<Arc<Product>>> = found.await.into_iter().collect::<Result<_, _>>()?;
    /// assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false, true]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_many<'a, I, K, F, Fut, R, E>(
        &self,
        ids: I,
        loader: F,
    ) -> BoxFuture<'a, Vec<Result<Option<Arc<T>>, Error>>>
    where
        I: IntoIterator<Item = K>,
        K: CacheKey<T::Id> + 'a,
        F: Fn(Vec<T::Id>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        R: IntoIterator<Item = T>,
        E: Into<BoxError> + 'static,
    {
        self.answers(ids, Batch::new(loader), value)
    }

    /// Is [`get_many`](Self::get_many), and tells how each record was come by.
    ///
    /// # Errors
    ///
    /// As [`get_many`](Self::get_many).
    ///
    /// # Cancel safety
    ///
    /// As [`get`](Self::get).
    pub fn lookup_many<'a, I, K, F, Fut, R, E>(&self, ids: I, loader: F) -> BoxFuture<'a, Vec<Result<Lookup<T>, Error>>>
    where
        I: IntoIterator<Item = K>,
        K: CacheKey<T::Id> + 'a,
        F: Fn(Vec<T::Id>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        R: IntoIterator<Item = T>,
        E: Into<BoxError> + 'static,
    {
        self.answers(ids, Batch::new(loader), |answer| answer.map(Lookup::from))
    }

    /// Invalidates a record and then gets it, which loads it anew.
    ///
    /// # Errors
    ///
    /// As [`invalidate`](Self::invalidate), and then as [`get`](Self::get).
    ///
    /// # Cancel safety
    ///
    /// As [`invalidate`](Self::invalidate) and [`get`](Self::get).
    pub fn refresh<'a, K, F, Fut, E>(&self, id: K, loader: F) -> BoxFuture<'a, Result<Option<Arc<T>>, Error>>
    where
        K: CacheKey<T::Id> + 'a,
        F: FnOnce(T::Id) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Option<T>, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        self.refreshed(id, |id| erase(loader(id)))
    }

    /// Reads the cache alone. `Ok(None)` when there is no entry, or a not-found entry, or an unreadable or stale one, or one
    /// whose invalidation is [pending](Self::pending). It counts neither as a hit nor as a miss, and refreshes nothing.
    ///
    /// Redis: as a hit of [`get`](Self::get).
    ///
    /// # Errors
    ///
    /// [`Error::Backend`] or [`Error::Timeout`] when the cache is out of reach; [`Error::InvalidId`].
    pub fn peek(&self, id: impl CacheKey<T::Id>) -> BoxFuture<'_, Result<Option<Arc<T>>, Error>> {
        self.core.peek(self.key(id)).map(|peeked| Ok(peeked?.map(typed))).boxed()
    }

    /// How long the entry will live, a not-found one included; `None` when there is none, or it is stale.
    ///
    /// Redis: as [`inspect`](Self::inspect).
    ///
    /// # Errors
    ///
    /// As [`peek`](Self::peek).
    pub fn ttl(&self, id: impl CacheKey<T::Id>) -> BoxFuture<'_, Result<Option<Duration>, Error>> {
        self.core.ttl(self.key(id))
    }

    /// Shows what is stored for a record: for debugging, and for the curious.
    ///
    /// Redis: two `PTTL` and `HGETALL`, one round trip.
    ///
    /// # Errors
    ///
    /// As [`peek`](Self::peek).
    pub fn inspect(&self, id: impl CacheKey<T::Id>) -> BoxFuture<'_, Result<Inspection, Error>> {
        self.core.inspect(self.key(id))
    }

    /// Shows which of this struct's records are read around the cache, because an invalidation or update of them failed
    /// and has not been applied yet: as an invalidation, tried again in the background. What waits is known to this
    /// process alone, and lost with it: [`Backend::close`] waits for it.
    pub fn pending(&self) -> Pending {
        let mut pending = Pending::default();
        for prefix in self.core.keys.prefixes() {
            let (keys, whole_type) = self.core.backend.pending(prefix);
            pending.keys.extend(keys);
            pending.whole_type |= whole_type;
        }
        pending
    }

    /// What this cache and its clones have done in this process.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// Sets all statistics to zero.
    pub fn reset_stats(&self) {
        self.core.reset_stats();
    }

    #[cfg(feature = "__proof")]
    pub(crate) fn flights(&self) -> usize {
        self.core.flights.count() + self.core.bypasses.count()
    }

    fn of(core: Core) -> Self {
        Self { core: ShardedArc::new(core), of: PhantomData }
    }

    #[expect(clippy::needless_pass_by_value, reason = "calls that need only the key end with their id here")]
    fn key(&self, id: impl CacheKey<T::Id>) -> Result<Key, Error> {
        self.core.keys.key(&id)
    }

    fn answer<K, L>(
        &self,
        id: K,
        loader: L,
        options: Options,
    ) -> impl Future<Output = Result<Answer, Error>> + Send + use<T, K, L>
    where
        K: CacheKey<T::Id>,
        L: FnOnce(T::Id) -> Loading + Send + 'static,
    {
        let (core, mut call) = (self.core.shard(), Call::<T, _, _>::new(id, loader));
        async move { core.get(&mut call, None, options).await }
    }

    fn refreshed<'a, K, L>(&self, id: K, loader: L) -> BoxFuture<'a, Result<Option<Arc<T>>, Error>>
    where
        K: CacheKey<T::Id> + 'a,
        L: FnOnce(T::Id) -> Loading + Send + 'static,
    {
        let (core, mut call) = (self.core.shard(), Call::<T, _, _>::new(id, loader));
        async move { value(core.refresh(&mut call).await) }.boxed()
    }

    fn answers<'a, K: CacheKey<T::Id> + 'a, A: 'a>(
        &self,
        ids: impl IntoIterator<Item = K>,
        batch: Arc<Batch>,
        typed: fn(Result<Answer, Error>) -> A,
    ) -> BoxFuture<'a, Vec<A>> {
        let (mut asked, mut different) = (Asked::default(), Vec::new());
        for id in ids {
            if asked.add(self.core.keys.key(&id)) {
                different.push(Some(id));
            }
        }
        let (core, mut ids) = (self.core.shard(), Different::<T, K>::new(different));
        async move { core.get_many(asked, &mut ids, batch).await.into_iter().map(typed).collect() }.boxed()
    }
}

/// The record of an answer, with its type.
fn value<T: Cacheable>(answer: Result<Answer, Error>) -> Result<Option<Arc<T>>, Error> {
    Ok(answer?.record.map(typed))
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
