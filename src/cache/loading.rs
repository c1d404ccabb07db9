//! A cache with its loader bound: [`LoadingCache`].

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Cache, Kind, Lookup, value};
use crate::error::Error;
use crate::read::Loading;
use crate::record::{CacheKey, Cacheable};

/// A [`Cache`] with a bound loader, so that calls need only the id. [`Cache::with_loader`] makes it.
///
/// It dereferences to the cache, for the operations that don't load.
pub struct LoadingCache<T: Cacheable> {
    pub(super) cache: Cache<T>,
    pub(super) loader: Arc<dyn Fn(T::Id) -> Loading + Send + Sync>,
}

impl<T: Cacheable> LoadingCache<T> {
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

    /// Calls [`Cache::refresh`] with the bound loader.
    ///
    /// # Errors
    ///
    /// As [`Cache::refresh`].
    pub fn refresh<'a, K: CacheKey<T::Id> + 'a>(&self, id: K) -> BoxFuture<'a, Result<Option<Arc<T>>, Error>> {
        self.cache.refreshed(id, self.loader())
    }

    fn loader(&self) -> impl FnOnce(T::Id) -> Loading + Send + use<T> {
        let loader = self.loader.clone();
        move |id| loader(id)
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
        Self { cache: self.cache.clone(), loader: self.loader.clone() }
    }
}

impl<T: Cacheable> fmt::Debug for LoadingCache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LoadingCache").field(&self.cache).finish()
    }
}
