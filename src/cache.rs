//! The public face: [`Cache`] and the operations that users call. Each says what it promises and hands over.

mod inspect;
mod loading;
mod lookup;
mod many;
mod pending;
mod policy;
mod update;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Semaphore;

pub use self::inspect::{EntryState, Inspection};
pub use self::loading::LoadingCache;
pub use self::lookup::{Lookup, Outcome};
use self::lookup::{Selected, Whole};
use self::many::Asked;
pub use self::pending::Pending;
pub(crate) use self::policy::Policy;
pub use self::policy::{CacheBuilder, OnOutage, UpdateTtl};
use crate::backend::{Backend, Selection};
use crate::batch::Batch;
use crate::cacheable::{Cacheable, Change, Field};
use crate::entry::{self, Reading};
use crate::error::{BoxError, Error};
use crate::flight::Flights;
use crate::id::CacheKey;
use crate::key::{Key, KeySpace};
use crate::lease::Orphans;
use crate::meter::CacheMeter;
use crate::near::Near;
use crate::projection::Projection;
use crate::refresh::Refreshes;
use crate::spread::SpreadArc;
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
    core: SpreadArc<Core<T>>,
}

/// What a cache, its clones and its flights share.
pub(crate) struct Core<T: Cacheable> {
    pub(crate) backend: Backend,
    pub(crate) policy: Policy<T>,
    pub(crate) meter: CacheMeter,
    near: Option<Arc<Near<T>>>,
    keys: KeySpace,
    /// The fields that `T` is made of.
    pub(crate) selection: Selection,
    /// Flights through the cache, and around it.
    flights: Arc<Flights<T>>,
    bypasses: Arc<Flights<T>>,
    pub(crate) refreshes: Refreshes,
    pub(crate) orphans: Orphans,
    /// The turns of loads around the cache.
    pub(crate) bypass_loads: Semaphore,
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
        Core::get(self.core.handle(), Whole::default(), id, loader, |got| got.value)
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
        Core::get(self.core.handle(), Whole { is_fresh: true, ..Whole::default() }, id, loader, |got| got.value)
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
        Core::get(self.core.handle(), Whole { is_timed: true, ..Whole::default() }, id, loader, Lookup::from)
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
        Core::get(self.core.handle(), Selected::new::<T>(fields), id, loader, |got| got.value)
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
    pub fn get_many<I, K, F, Fut, R, E>(
        &self,
        ids: I,
        loader: F,
    ) -> impl Future<Output = Vec<Result<Option<Arc<T>>, Error>>> + Send + use<T, I, K, F, Fut, R, E>
    where
        I: IntoIterator<Item = K>,
        K: CacheKey<T::Id>,
        F: Fn(Vec<T::Id>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        R: IntoIterator<Item = T>,
        E: Into<BoxError> + 'static,
    {
        let value = |lookup: Result<Lookup<T>, Error>| lookup.map(|lookup| lookup.value);
        self.lookup_many(ids, loader).map(move |lookups| lookups.into_iter().map(value).collect())
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
    pub fn lookup_many<I, K, F, Fut, R, E>(
        &self,
        ids: I,
        loader: F,
    ) -> impl Future<Output = Vec<Result<Lookup<T>, Error>>> + Send + use<T, I, K, F, Fut, R, E>
    where
        I: IntoIterator<Item = K>,
        K: CacheKey<T::Id>,
        F: Fn(Vec<T::Id>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        R: IntoIterator<Item = T>,
        E: Into<BoxError> + 'static,
    {
        let asked: Asked<K> = ids.into_iter().map(|id| (self.key(&id), id)).collect();
        let (core, batch) = (Arc::clone(&self.core), Batch::new(loader));
        async move { core.get_many(asked, batch).await }
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
    pub fn refresh<K, F, Fut, E>(
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
        let (core, key) = (self.core.handle(), self.key(&id));
        async move {
            let key = key?;
            core.invalidate(key.clone()).await?;
            Core::get(core, Whole { is_fresh: true, ..Whole::default() }, id, loader, |got| got.value).await
        }
    }

    /// Reads the cache alone. `Ok(None)` when there is no entry, or a not-found entry, or an unreadable or stale one, or one
    /// whose invalidation is [pending](Self::pending). It counts neither as a hit nor as a miss, and refreshes nothing.
    ///
    /// Redis: as a hit of [`get`](Self::get).
    ///
    /// # Errors
    ///
    /// [`Error::Backend`] or [`Error::Timeout`] when the cache is out of reach; [`Error::InvalidId`].
    pub async fn peek(&self, id: impl CacheKey<T::Id>) -> Result<Option<Arc<T>>, Error> {
        let key = self.key(&id)?;
        if !self.core.policy.enabled || self.core.backend.is_pending(&key) {
            return Ok(None);
        }
        let found = self.core.found(&key, &self.core.selection).await?;
        Ok(match found.map(|found| self.core.read(&key, &found, entry::decode)) {
            Some(Reading::Record(record)) => Some(Arc::new(record)),
            Some(Reading::Stale(..) | Reading::NotFound | Reading::Unreadable(_)) | None => None,
        })
    }

    /// Sets one field of a cached record, after it was written to the primary. `true`: applied to a live record;
    /// `false`: there was nothing to update, and the next `get` loads.
    ///
    /// The last call wins, so the [promise](Self#the-promise) holds only while the writers of one record are serialised
    /// from their commit to the end of this call; otherwise use [`invalidate`](Self::invalidate). A record that the
    /// update would make too large, a value that can't be encoded, and a server out of memory: the entry is removed, and
    /// the answer is `false`. So they are for a record that is stored under an `alias`, and for a stale one.
    ///
    /// The versions that the struct's `also_invalidates` lists are invalidated at the same time, whatever becomes of the
    /// update; the answer is about this version's entry alone.
    ///
    /// Redis: `WATCH`, `PTTL`, `HMGET` or `HGETALL`, then `MULTI`, `HSET` or `HDEL`, `DEL` of the lease, `EXEC`, on a
    /// connection of its own: two round trips.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] after `update_timeout`; [`Error::Backend`]; [`Error::InvalidId`]. Unless the id was invalid,
    /// it is unknown whether the field was set, and the entry will be invalidated: see [`pending`](Self::pending). So it
    /// is when another version's key failed, which the error then names.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the field is set or not, never half; and the entry will be invalidated, as after an
    /// error.
    pub async fn update_field<V>(&self, id: impl CacheKey<T::Id>, field: Field<T, V>, value: V) -> Result<bool, Error> {
        self.update_fields(id, [field.set(value)]).await
    }

    /// Sets several fields of a cached record in one step. Of two changes of one field, the later holds.
    ///
    /// # Errors
    ///
    /// As [`update_field`](Self::update_field).
    ///
    /// # Cancel safety
    ///
    /// As [`update_field`](Self::update_field).
    ///
    /// # Examples
    ///
    /// ```
    /// # use cache_aside::{Backend, BoxError, Cache, Cacheable};
    /// # #[derive(Debug, Cacheable)]
    /// # struct Product { #[cacheable(id)] id: u64, stock: u32, note: Option<String> }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// # let products: Cache<Product> = Cache::new(Backend::connect("memory://").await?);
    /// let fields = Product::FIELDS;
    /// products.update_fields(7, [fields.stock.set(41), fields.note.set(None)]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn update_fields(
        &self,
        id: impl CacheKey<T::Id>,
        changes: impl IntoIterator<Item = Change<T>>,
    ) -> Result<bool, Error> {
        self.core.update_fields(&self.key(&id)?, changes.into_iter().collect()).await
    }

    /// Changes a cached record by a function, and returns it as it is stored then; `None`: there was nothing to change.
    /// Only the fields that changed are written. `change` may run several times, when others change the entry at the
    /// same time. The last call wins, as for [`update_field`](Self::update_field).
    ///
    /// # Errors
    ///
    /// As [`update_field`](Self::update_field), but don't try again, which may make the change twice: `invalidate`. And
    /// [`Error::InvalidId`] when `change` has changed the id: then nothing was written.
    ///
    /// # Cancel safety
    ///
    /// As [`update_field`](Self::update_field).
    ///
    /// # Examples
    ///
    /// ```
    /// # use cache_aside::{Backend, BoxError, Cache, Cacheable};
    /// # #[derive(Debug, Cacheable)]
    /// # struct Product { #[cacheable(id)] id: u64, stock: u32 }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// # let products: Cache<Product> = Cache::new(Backend::connect("memory://").await?);
    /// # products.get(7, |id| async move { Ok::<_, BoxError>(Some(Product { id, stock: 42 })) }).await?;
    /// let product = products.modify(7, |product| product.stock -= 1).await?;
    /// assert_eq!(product.unwrap().stock, 41);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn modify(
        &self,
        id: impl CacheKey<T::Id>,
        change: impl FnMut(&mut T) + Send,
    ) -> Result<Option<Arc<T>>, Error> {
        self.core.modify(&self.key(&id)?, change).await
    }

    /// Removes an entry and revokes the load that is under way, if any: call it after every commit that changed, created
    /// or deleted the record in the primary. Returns whether there was an entry, a not-found one included.
    ///
    /// The versions that the struct's `also_invalidates` lists are invalidated in the same call, each by commands of its
    /// own, all at the same time; then the answer is whether there was an entry in any of them.
    ///
    /// Redis: `DEL` of the lease, then `DEL` of the entry, in one pipeline; one round trip.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`] or [`Error::Timeout`] when the cache is out of reach: it is tried again in the background, and
    /// until it has been applied this process reads around the cache for the record, see [`pending`](Self::pending).
    /// Other processes may get the old entry until then. [`Error::InvalidId`]. With several versions, an error names the
    /// first key that failed; no other was left out because of it.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the entry is removed or not; if not, it is tried again as after an error. With several
    /// versions, each on its own. One that was never polled has done nothing.
    pub async fn invalidate(&self, id: impl CacheKey<T::Id>) -> Result<bool, Error> {
        self.core.invalidate(self.key(&id)?).await
    }

    /// Invalidates many records; the results have the order and the number of the ids.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, some entries are removed; the others are tried again as after an error. One that was
    /// never polled has done nothing.
    pub async fn invalidate_many<K: CacheKey<T::Id>>(
        &self,
        ids: impl IntoIterator<Item = K>,
    ) -> Vec<Result<bool, Error>> {
        /// Enough to keep the connection busy, few enough to keep each call's deadline.
        const AT_A_TIME: usize = 128;
        // All are begun before the first is sent, so that none is forgotten when this is dropped.
        let invalidations: Vec<_> = ids.into_iter().map(|id| self.begin_invalidation(self.key(&id))).collect();
        futures_util::stream::iter(invalidations).buffered(AT_A_TIME).collect().await
    }

    fn begin_invalidation(&self, key: Result<Key, Error>) -> BoxFuture<'_, Result<bool, Error>> {
        match key {
            Ok(key) => self.core.invalidate(key).boxed(),
            Err(error) => std::future::ready(Err(error)).boxed(),
        }
    }

    /// How long the entry will live, a not-found one included; `None` when there is none, or it is stale.
    ///
    /// Redis: as [`inspect`](Self::inspect).
    ///
    /// # Errors
    ///
    /// As [`peek`](Self::peek).
    pub async fn ttl(&self, id: impl CacheKey<T::Id>) -> Result<Option<Duration>, Error> {
        let found = self.core.backend.look(&self.key(&id)?).await?.found;
        Ok(found.and_then(|found| found.ttl()).filter(|ttl| !ttl.is_zero()))
    }

    /// Shows what is stored for a record: for debugging, and for the curious.
    ///
    /// Redis: two `PTTL` and `HGETALL`, one round trip.
    ///
    /// # Errors
    ///
    /// As [`peek`](Self::peek).
    pub async fn inspect(&self, id: impl CacheKey<T::Id>) -> Result<Inspection, Error> {
        let key = self.key(&id)?;
        let look = self.core.backend.look(&key).await?;
        Ok(Inspection::new::<T>(&key, &look))
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
        let mut stats = self.core.meter.counts.snapshot();
        if let Some(near) = &self.core.near {
            near.meter.add_to(&mut stats);
            stats.tracker = near.tracker();
        }
        stats
    }

    /// Sets all statistics to zero.
    pub fn reset_stats(&self) {
        self.core.meter.counts.reset();
        if let Some(near) = &self.core.near {
            near.meter.reset();
        }
    }

    #[cfg(feature = "__proof")]
    pub(crate) fn flights(&self) -> usize {
        self.core.flights.count() + self.core.bypasses.count()
    }

    fn key(&self, id: &impl CacheKey<T::Id>) -> Result<Key, Error> {
        self.core.keys.key(id)
    }
}

impl<T: Cacheable> Clone for Cache<T> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone() }
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
