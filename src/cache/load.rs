//! Loaders that are told about their load, and tell how it is to be stored: [`Load`], [`Loaded`]; and loaders as types: [`Loader`].

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Cache, Kind, Lookup, value};
use crate::error::{BoxError, Error};
use crate::read::{self, Given, LoaderAnswer, Terms, erase, erase_record};
use crate::record::{CacheKey, Cacheable, typed};

impl<T: Cacheable> Cache<T> {
    /// Like [`get`](Self::get), with a loader that is told about its [`Load`], and whose answer says how it is to be stored: for
    /// sources that know how long a record is valid, or can say that it is unchanged.
    ///
    /// Redis: an answer [`unchanged`](Loaded::unchanged) renews the entry's TTL by a script, without sending the record.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get). [`Error::Load`] for the answer `unchanged` to a load without a record.
    ///
    /// # Cancel safety
    ///
    /// As [`get`](Self::get).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use cache_aside::{Backend, BoxError, Cache, Cacheable, Load, Loaded};
    ///
    /// #[derive(Debug, Cacheable)]
    /// #[cacheable(stale_while_revalidate = "10m")]
    /// struct Product { #[cacheable(id)] id: String, etag: String, stock: u32 }
    /// # enum Reply { NotModified, Found(Product, Duration), Gone }
    /// # async fn http_get(id: &str, _etag: Option<String>) -> Result<Reply, BoxError> {
    /// #     let product = Product { id: id.to_owned(), etag: "1".into(), stock: 42 };
    /// #     Ok(Reply::Found(product, Duration::from_secs(60))) }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// let products: Cache<Product> = Cache::new(Backend::connect("memory://").await?);
    /// let product = products.get_with("p-001", |load: Load<Product>| async move {
    ///     let etag = load.stale().map(|old| old.etag.clone());
    ///     Ok::<_, BoxError>(match http_get(load.id(), etag).await? {
    ///         Reply::NotModified => Loaded::unchanged(),
    ///         Reply::Found(product, max_age) => Loaded::record(product).ttl(max_age),
    ///         Reply::Gone => Loaded::not_found().ttl(Duration::from_secs(60)),
    ///     })
    /// });
    /// assert_eq!(product.await?.unwrap().stock, 42);
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_with<K, F, Fut, E>(
        &self,
        id: K,
        loader: F,
    ) -> impl Future<Output = Result<Option<Arc<T>>, Error>> + Send + use<T, K, F, Fut, E>
    where
        K: CacheKey<T::Id>,
        F: FnOnce(Load<T>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Loaded<T>, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        self.answer(id, |_key, id| told(id, loader), Kind::Get, value)
    }

    /// Like [`get_with`](Self::get_with), but also reports where the record came from.
    ///
    /// # Errors
    ///
    /// As [`get_with`](Self::get_with).
    ///
    /// # Cancel safety
    ///
    /// As [`get`](Self::get).
    pub fn lookup_with<K, F, Fut, E>(
        &self,
        id: K,
        loader: F,
    ) -> impl Future<Output = Result<Lookup<T>, Error>> + Send + use<T, K, F, Fut, E>
    where
        K: CacheKey<T::Id>,
        F: FnOnce(Load<T>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Loaded<T>, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        self.answer(id, |_key, id| told(id, loader), Kind::Lookup, Lookup::from)
    }
}

/// A loader that is told about its load.
fn told<T, F, Fut, E>(id: T::Id, loader: F) -> read::Loader
where
    T: Cacheable,
    F: FnOnce(Load<T>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Loaded<T>, E>> + Send + 'static,
    E: Into<BoxError> + 'static,
{
    read::Loader::new(|given| erase(loader(Load::new(id, given)), Loaded::erase))
}

/// A load under way, as its loader sees it: see [`Cache::get_with`](crate::Cache::get_with).
pub struct Load<T: Cacheable> {
    id: T::Id,
    given: Given,
}

impl<T: Cacheable> Load<T> {
    pub(super) fn new(id: T::Id, given: Given) -> Self {
        Self { id, given }
    }

    /// The id that was asked for.
    pub fn id(&self) -> &T::Id {
        &self.id
    }

    /// The record that is in the cache, past its TTL, or before its end if it is refreshed. It was read after the lease of this
    /// load was granted. `None` if there is none, and for loads around the cache.
    pub fn stale(&self) -> Option<Arc<T>> {
        self.given.stale.clone().map(typed)
    }

    /// When `load_timeout` is over, and this load is dropped.
    pub fn deadline(&self) -> Instant {
        self.given.deadline
    }
}

impl<T: Cacheable> fmt::Debug for Load<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load").field("deadline", &self.given.deadline).finish_non_exhaustive()
    }
}

/// A loader's answer: a record or none, and how it is to be stored, where the cache's settings don't fit.
///
/// # Examples
///
/// ```
/// # use std::time::Duration;
/// # use cache_aside::{Cacheable, Loaded};
/// # #[derive(Debug, Cacheable)]
/// # struct Product { #[cacheable(id)] id: u64, stock: u32 }
/// let loaded = Loaded::record(Product { id: 7, stock: 42 }).ttl(Duration::from_secs(10));
/// let missing = Loaded::<Product>::not_found().no_store();
/// ```
#[must_use = "it is the answer of a loader"]
pub struct Loaded<T> {
    answer: Answer<T>,
    terms: Terms,
}

enum Answer<T> {
    Record(T),
    NotFound,
    Unchanged,
}

impl<T> Loaded<T> {
    fn new(answer: Answer<T>) -> Self {
        Self { answer, terms: Terms::default() }
    }

    /// The primary has this record.
    pub fn record(record: T) -> Self {
        Self::new(Answer::Record(record))
    }

    /// The primary has no such record.
    pub fn not_found() -> Self {
        Self::new(Answer::NotFound)
    }

    /// The primary still has the record that [`Load::stale`] returned, which then lives on with a new TTL. If that returned none,
    /// as for all loads of many records in one call, this answer is an error of the load.
    pub fn unchanged() -> Self {
        Self::new(Answer::Unchanged)
    }

    /// Sets how long the record or the not-found entry lives in the cache. Less than 1 ms keeps it out, and more than 36,500
    /// days count as that. It is shortened by [`jitter`](crate::CacheBuilder::jitter). Default: the cache's settings.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.terms.ttl = Some(ttl);
        self
    }

    /// Sets how long the record is kept past its TTL. Each cache serves it no longer than its own
    /// [`stale_if_error`](crate::CacheBuilder::stale_if_error) and
    /// [`stale_while_revalidate`](crate::CacheBuilder::stale_while_revalidate) allow. Less than 1 ms: not at all; more than 36,500
    /// days count as that. Default: the longer of these settings.
    pub fn stale_for(mut self, stale_for: Duration) -> Self {
        self.terms.stale_for = Some(stale_for);
        self
    }

    /// Keeps the answer out of the cache. An entry that is there is removed.
    pub fn no_store(mut self) -> Self {
        self.terms.no_store = true;
        self
    }
}

impl<T: Cacheable> Loaded<T> {
    /// Erases the type of the record.
    pub(super) fn erase(self) -> read::Loaded {
        let answer = match self.answer {
            Answer::Record(record) => LoaderAnswer::Record(erase_record(record)),
            Answer::NotFound => LoaderAnswer::NotFound,
            Answer::Unchanged => LoaderAnswer::Unchanged,
        };
        read::Loaded { answer, terms: self.terms }
    }
}

/// A record, or that the primary has none.
impl<T> From<Option<T>> for Loaded<T> {
    fn from(record: Option<T>) -> Self {
        record.map_or_else(Self::not_found, Self::record)
    }
}

impl<T> fmt::Debug for Loaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answer = match self.answer {
            Answer::Record(_) => "record",
            Answer::NotFound => "not_found",
            Answer::Unchanged => "unchanged",
        };
        f.debug_struct("Loaded").field("answer", &answer).field("terms", &self.terms).finish()
    }
}

/// Loads records from the primary: a repository, for [`Cache::loaded_by`](crate::Cache::loaded_by). A closure needs no such type:
/// see [`Cache::with_loader`](crate::Cache::with_loader).
///
/// # Examples
///
/// ```
/// use cache_aside::{Backend, BoxError, Cache, Cacheable, Loader};
///
/// # #[derive(Debug, Cacheable)]
/// # struct Product { #[cacheable(id)] id: u64, stock: u32 }
/// # struct Db;
/// # impl Db {
/// #     async fn find(&self, id: u64) -> Result<Option<Product>, BoxError> { Ok(Some(Product { id, stock: 42 })) }
/// #     async fn find_all(&self, ids: Vec<u64>) -> Result<Vec<Product>, BoxError> {
/// #         Ok(ids.into_iter().map(|id| Product { id, stock: 42 }).collect()) }
/// # }
/// struct Products {
///     db: Db,
/// }
///
/// impl Loader<Product> for Products {
///     type Error = BoxError;
///
///     async fn load(&self, id: u64) -> Result<Option<Product>, BoxError> {
///         self.db.find(id).await
///     }
///
///     async fn load_many(&self, ids: Vec<u64>) -> Result<Vec<Product>, BoxError> {
///         self.db.find_all(ids).await // SELECT .. WHERE id = ANY($1)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let products = Cache::new(Backend::connect("memory://").await?).loaded_by(Products { db: Db });
/// assert!(products.get(7).await?.is_some());
/// assert_eq!(products.get_many([7, 8, 9]).await.len(), 3);
/// # Ok(())
/// # }
/// ```
pub trait Loader<T: Cacheable>: Send + Sync + 'static {
    /// The error of a load.
    type Error: Into<BoxError> + Send + 'static;

    /// Loads one record. `None` if the primary has no such record.
    ///
    /// It runs in a task of its own: see [`Cache::get`](crate::Cache::get).
    fn load(&self, id: T::Id) -> impl Future<Output = Result<Option<T>, Self::Error>> + Send;

    /// Loads many records, and returns them in any order; none for an id that the primary doesn't have. Unless it is
    /// implemented, it calls [`load`](Self::load) for each id, for 32 of them at a time, and fails with the first that fails.
    fn load_many(&self, ids: Vec<T::Id>) -> impl Future<Output = Result<Vec<T>, Self::Error>> + Send {
        async move {
            let loads = ids.into_iter().map(|id| self.load(id));
            stream::iter(loads)
                .buffer_unordered(AT_A_TIME)
                .try_filter_map(async |loaded| Ok(loaded))
                .try_collect()
                .await
        }
    }
}

/// A loader that is shared.
impl<T: Cacheable, L: Loader<T>> Loader<T> for Arc<L> {
    type Error = L::Error;

    fn load(&self, id: T::Id) -> impl Future<Output = Result<Option<T>, Self::Error>> + Send {
        L::load(self, id)
    }

    fn load_many(&self, ids: Vec<T::Id>) -> impl Future<Output = Result<Vec<T>, Self::Error>> + Send {
        L::load_many(self, ids)
    }
}

/// How many records a loader of one record loads at a time, where many are asked for.
const AT_A_TIME: usize = 32;
