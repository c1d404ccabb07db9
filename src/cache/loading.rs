//! A cache with its loader bound: [`LoadingCache`], and the ways to bind one.

use std::fmt;
use std::ops::Deref;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::many::of_records;
use super::{Cache, Kind, Loader, Lookup, Outcome, value};
use crate::defaults;
use crate::error::{self, BoxError, Error};
use crate::read::{self, Batch, ErasedId, Loading, ManyLoader, erase};
use crate::record::{CacheKey, Cacheable, Key, Projection};

/// A [`Cache`] with a bound loader, so that calls need only the id: made by [`Cache::with_loader`], [`Cache::loaded_by`],
/// [`Cache::with_batch_loader`] or [`Cache::with_blocking_loader`].
///
/// It dereferences to the cache, for the operations that don't load.
pub struct LoadingCache<T: Cacheable> {
    cache: Cache<T>,
    loader: OneLoader<T>,
    many: ManyLoader,
    /// How long a call that single gets share waits for more of them. `None`: they share none.
    window: Option<Duration>,
    at_most: usize,
}

/// A loader of one record, with its types erased but for the id.
type OneLoader<T> = Arc<dyn Fn(&Key, <T as Cacheable>::Id) -> read::Loader + Send + Sync>;

/// How a [`LoadingCache::warm`] has ended.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Warmed {
    /// The number of ids that had an entry already, not-found entries included.
    pub cached: usize,
    /// The number of ids that were loaded, by this call or another at the same time; around the cache, if it is out of reach or
    /// disabled.
    pub loaded: usize,
    /// The number of ids that could not be loaded.
    pub failed: usize,
    /// The first error.
    pub error: Option<Error>,
}

impl<T: Cacheable> Cache<T> {
    /// Binds a loader, so that calls need only the id. `get_many` loads each record by itself, 32 at a time.
    ///
    /// The closure is called for each load, so what it uses has to be cloned for each: a `move` closure that clones, and an
    /// `async move` block that owns the clone. [`loaded_by`](Self::loaded_by) takes a type in place of that.
    ///
    /// # Examples
    ///
    /// ```
    /// # use cache_aside::{Backend, BoxError, Cache, Cacheable};
    /// # #[derive(Debug, Cacheable)]
    /// # struct Product { #[cacheable(id)] id: String }
    /// # #[derive(Clone)] struct Db;
    /// # impl Db { async fn find(&self, id: String) -> Result<Option<Product>, BoxError> { Ok(Some(Product { id })) } }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// # let db = Db;
    /// # let products: Cache<Product> = Cache::new(Backend::connect("memory://").await?);
    /// let products = products.with_loader(move |id| {
    ///     let db = db.clone();
    ///     async move { db.find(id).await }
    /// });
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
        let loader = Arc::new(loader);
        self.with_each(move |id| erase(loader(id), read::Loaded::new))
    }

    /// Binds a loader that has a type of its own, which loads one record or many.
    pub fn loaded_by(&self, loader: impl Loader<T>) -> LoadingCache<T> {
        let loader = Arc::new(loader);
        let one = {
            let loader = loader.clone();
            move |id| {
                let loader = loader.clone();
                erase(async move { loader.load(id).await }, read::Loaded::new)
            }
        };
        let many = of_records(move |ids| {
            let loader = loader.clone();
            async move { loader.load_many(ids).await }
        });
        self.bound(one, many)
    }

    /// Binds a loader of many records, as for [`get_many`](Self::get_many). Single gets that miss share its calls: the first waits
    /// for others for [`window`](LoadingCache::window), 1 ms by default, until there are
    /// [`at_most`](LoadingCache::at_most) ids, 1,024 by default.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use cache_aside::{Backend, BoxError, Cache, Cacheable};
    /// # #[derive(Debug, Cacheable)]
    /// # struct Product { #[cacheable(id)] id: u64 }
    /// # #[derive(Clone)] struct Db;
    /// # impl Db { async fn find_all(&self, ids: Vec<u64>) -> Result<Vec<Product>, BoxError> {
    /// #     Ok(ids.into_iter().map(|id| Product { id }).collect()) } }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// # let db = Db;
    /// # let products: Cache<Product> = Cache::new(Backend::connect("memory://").await?);
    /// let products = products.with_batch_loader(move |ids| {
    ///     let db = db.clone();
    ///     async move { db.find_all(ids).await }
    /// });
    /// let products = products.window(Duration::from_millis(1)).at_most(200);
    /// let (seven, eight) = tokio::join!(products.get(7), products.get(8)); // one call
    /// assert!(seven?.is_some() && eight?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("dataloader"))]
    pub fn with_batch_loader<F, Fut, R, E>(&self, loader: F) -> LoadingCache<T>
    where
        F: Fn(Vec<T::Id>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        R: IntoIterator<Item = T>,
        E: Into<BoxError> + 'static,
    {
        let (many, at_most) = (of_records(loader), defaults::BATCH_AT_MOST);
        let loader = self.sharing(&many, defaults::BATCH_WINDOW, at_most);
        LoadingCache { cache: self.clone(), loader, many, window: Some(defaults::BATCH_WINDOW), at_most }
    }

    /// Binds a loader that blocks its thread, as of a database driver that isn't async: it runs on tokio's threads for blocking
    /// calls. `load_timeout` ends the wait for it, but can't stop it.
    ///
    /// # Examples
    ///
    /// ```
    /// # use cache_aside::{Backend, BoxError, Cache, Cacheable};
    /// # #[derive(Debug, Cacheable)]
    /// # struct Product { #[cacheable(id)] id: u64 }
    /// # fn find_with_diesel(id: u64) -> Result<Option<Product>, BoxError> { Ok(Some(Product { id })) }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// # let products: Cache<Product> = Cache::new(Backend::connect("memory://").await?);
    /// let products = products.with_blocking_loader(|id| find_with_diesel(id));
    /// assert!(products.get(7).await?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_blocking_loader<F, E>(&self, loader: F) -> LoadingCache<T>
    where
        F: Fn(T::Id) -> Result<Option<T>, E> + Send + Sync + 'static,
        E: Into<BoxError> + 'static,
    {
        let loader = Arc::new(loader);
        self.with_each(move |id| {
            let loader = loader.clone();
            let call = move || loader(id).map(read::Loaded::new).map_err(error::boxed);
            let called = async move {
                let ended = tokio::task::spawn_blocking(call).await;
                ended.unwrap_or_else(|ended| match ended.try_into_panic() {
                    Ok(panic) => resume_unwind(panic),
                    Err(_) => Err("the runtime of its thread has shut down".into()),
                })
            };
            called.boxed()
        })
    }

    /// Binds a loader of one record, which also loads each of many.
    fn with_each(&self, one: impl Fn(T::Id) -> Loading + Clone + Send + Sync + 'static) -> LoadingCache<T> {
        let each = {
            let one = one.clone();
            move |id: ErasedId| {
                let one = one.clone();
                read::Loader::new(move |_given| match id.downcast::<T::Id>() {
                    Ok(id) => one(*id),
                    Err(_) => std::future::ready(Err("an id of another type".into())).boxed(),
                })
            }
        };
        self.bound(one, ManyLoader::Each(Arc::new(each)))
    }

    fn bound(
        &self,
        one: impl Fn(T::Id) -> Loading + Clone + Send + Sync + 'static,
        many: ManyLoader,
    ) -> LoadingCache<T> {
        let loader = Arc::new(move |_key: &Key, id| {
            let one = one.clone();
            read::Loader::new(move |_given| one(id))
        });
        let at_most = defaults::BATCH_AT_MOST;
        LoadingCache { cache: self.clone(), loader, many, window: None, at_most }
    }

    /// A loader of one record that shares calls of a loader of many, if there is one.
    fn sharing(&self, many: &ManyLoader, window: Duration, at_most: usize) -> OneLoader<T> {
        match many {
            ManyLoader::Together(loader) => {
                let batch = Batch::windowed(Arc::clone(&self.core), loader.clone(), window, at_most);
                Arc::new(move |key, id| batch.clone().loader(key.clone(), Box::new(id)))
            }
            ManyLoader::Each(loader) => {
                let loader = loader.clone();
                Arc::new(move |_key, id| loader(Box::new(id)))
            }
        }
    }
}

impl<T: Cacheable> LoadingCache<T> {
    /// Lets single gets that miss share calls of the loader of many records: the first waits for others for this long, which is a
    /// part of its `load_timeout`; with zero it waits for none. It applies to this handle and its clones from then on, and has no effect with a
    /// loader of one record alone. Default: [`defaults::BATCH_WINDOW`](crate::defaults::BATCH_WINDOW), 1 ms, for
    /// [`Cache::with_batch_loader`]; with [`Cache::loaded_by`], single gets share no calls.
    #[must_use = "it returns the cache with this window"]
    pub fn window(mut self, window: Duration) -> Self {
        self.window = Some(window);
        self.loader = self.cache.sharing(&self.many, window, self.at_most);
        self
    }

    /// Sets the most ids in one call that single gets share. A call with that many starts at once. At least 1, which 0 counts as.
    /// Default: [`defaults::BATCH_AT_MOST`](crate::defaults::BATCH_AT_MOST), 1,024.
    #[must_use = "it returns the cache with this bound"]
    pub fn at_most(mut self, at_most: usize) -> Self {
        self.at_most = at_most.max(1);
        if let Some(window) = self.window {
            self.loader = self.cache.sharing(&self.many, window, self.at_most);
        }
        self
    }

    /// Calls [`Cache::get`] with the bound loader.
    ///
    /// # Errors
    ///
    /// As [`Cache::get`].
    pub fn get<K: CacheKey<T::Id>>(
        &self,
        id: K,
    ) -> impl Future<Output = Result<Option<Arc<T>>, Error>> + Send + use<T, K> {
        self.cache.answer(id, self.loader(), Kind::Get, value)
    }

    /// Calls [`Cache::get_fresh`] with the bound loader.
    ///
    /// # Errors
    ///
    /// As [`Cache::get`].
    pub fn get_fresh<K: CacheKey<T::Id>>(
        &self,
        id: K,
    ) -> impl Future<Output = Result<Option<Arc<T>>, Error>> + Send + use<T, K> {
        self.cache.answer(id, self.loader(), Kind::Fresh, value)
    }

    /// Calls [`Cache::lookup`] with the bound loader.
    ///
    /// # Errors
    ///
    /// As [`Cache::lookup`].
    pub fn lookup<K: CacheKey<T::Id>>(
        &self,
        id: K,
    ) -> impl Future<Output = Result<Lookup<T>, Error>> + Send + use<T, K> {
        self.cache.answer(id, self.loader(), Kind::Lookup, Lookup::from)
    }

    /// Calls [`Cache::get_fields`] with the bound loader.
    ///
    /// # Errors
    ///
    /// As [`Cache::get`].
    pub fn get_fields<K: CacheKey<T::Id>, P: Projection<T>>(
        &self,
        id: K,
        fields: P,
    ) -> impl Future<Output = Result<Option<P::Values>, Error>> + Send + use<T, K, P> {
        self.cache.fields(id, fields, self.loader())
    }

    /// Calls [`Cache::refresh`] with the bound loader.
    ///
    /// # Errors
    ///
    /// As [`Cache::refresh`].
    pub fn refresh<'a, K: CacheKey<T::Id> + 'a>(&self, id: K) -> BoxFuture<'a, Result<Option<Arc<T>>, Error>> {
        self.cache.refreshed(id, self.loader())
    }

    /// Calls [`Cache::get_many`] with the bound loader.
    ///
    /// # Errors
    ///
    /// As [`Cache::get_many`].
    pub fn get_many<'a, K: CacheKey<T::Id> + 'a>(
        &self,
        ids: impl IntoIterator<Item = K>,
    ) -> BoxFuture<'a, Vec<Result<Option<Arc<T>>, Error>>> {
        self.cache.answers(ids, self.many.clone(), false, value)
    }

    /// Calls [`Cache::lookup_many`] with the bound loader.
    ///
    /// # Errors
    ///
    /// As [`Cache::get_many`].
    pub fn lookup_many<'a, K: CacheKey<T::Id> + 'a>(
        &self,
        ids: impl IntoIterator<Item = K>,
    ) -> BoxFuture<'a, Vec<Result<Lookup<T>, Error>>> {
        self.cache.answers(ids, self.many.clone(), true, Lookup::from)
    }

    /// Loads the records that are not cached, `at_a_time` of them, at least 1, by calls of the loader of many records: for the
    /// start of a service. Records that can't be loaded are counted, and don't stop it.
    ///
    /// Redis: as [`get_many`](Self::get_many) of `at_a_time` ids, again and again.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops it after the loads that are under way.
    ///
    /// # Examples
    ///
    /// ```
    /// # use cache_aside::{Backend, BoxError, Cache, Cacheable};
    /// # #[derive(Debug, Cacheable)]
    /// # struct Product { #[cacheable(id)] id: u64 }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// # let products: Cache<Product> = Cache::new(Backend::connect("memory://").await?);
    /// # let products = products.with_loader(|id| async move { Ok::<_, BoxError>(Some(Product { id })) });
    /// let warmed = products.warm(0..1_000, 64).await;
    /// assert_eq!(warmed.loaded, 1_000);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("preload", "prefetch"))]
    pub fn warm<'a, K: CacheKey<T::Id> + 'a>(
        &self,
        ids: impl IntoIterator<Item = K>,
        at_a_time: usize,
    ) -> BoxFuture<'a, Warmed> {
        let (cache, mut ids) = (self.clone(), ids.into_iter().collect::<Vec<_>>().into_iter());
        async move {
            let mut warmed = Warmed::default();
            loop {
                let part: Vec<_> = ids.by_ref().take(at_a_time.max(1)).collect();
                if part.is_empty() {
                    return warmed;
                }
                for found in cache.lookup_many(part).await {
                    warmed.add(found);
                }
            }
        }
        .boxed()
    }

    fn loader(&self) -> impl FnOnce(&Key, T::Id) -> read::Loader + Send + use<T> {
        let loader = self.loader.clone();
        move |key, id| loader(key, id)
    }
}

impl Warmed {
    fn add<T>(&mut self, found: Result<Lookup<T>, Error>) {
        match found.map(|found| found.outcome) {
            Ok(Outcome::Hit | Outcome::NotFoundHit | Outcome::NearHit | Outcome::Stale { .. }) => self.cached += 1,
            Ok(_) => self.loaded += 1,
            Err(error) => {
                self.failed += 1;
                self.error.get_or_insert(error);
            }
        }
    }
}

impl<T: Cacheable> Deref for LoadingCache<T> {
    type Target = Cache<T>;

    fn deref(&self) -> &Cache<T> {
        &self.cache
    }
}

impl<T: Cacheable> Clone for LoadingCache<T> {
    fn clone(&self) -> Self {
        let Self { cache, loader, many, window, at_most } = self;
        Self { cache: cache.clone(), loader: loader.clone(), many: many.clone(), window: *window, at_most: *at_most }
    }
}

impl<T: Cacheable> fmt::Debug for LoadingCache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LoadingCache").field(&self.cache).finish()
    }
}
