//! Many gets in one call.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Cache, Loaded, Lookup, TAKEN_ONCE, value};
use crate::error::{self, BoxError, Cause, Error};
use crate::read::{self, Answer, Asked, BatchLoader, ErasedId, LoadedOne, ManyLoader};
use crate::record::{CacheKey, Cacheable, KeySpace};

impl<T: Cacheable> Cache<T> {
    /// Gets many records at once. The results have the order and the number of the ids, which may repeat.
    ///
    /// All records are read in one round trip, or in a cluster in one to each server. `loader` is called once, with the
    /// missing ids that no other call is loading yet. It returns their records in any order, and none for an id that the
    /// primary doesn't have. If another call, in this process or another, is loading an id, this call waits for that load.
    /// If that load fails, or began before this call, `loader` is called again for those ids. Each record has a lease of
    /// its own, is stored, fenced and counted by itself, and has [the promise](Self#the-promise) by itself.
    ///
    /// More than 1,024 different ids are read and loaded in chunks of 1,024, one after the other.
    ///
    /// Redis: the commands of as many [`get`](Self::get)s, sent together.
    ///
    /// # Errors
    ///
    /// For each id as for [`get`](Self::get). If `loader` fails, all ids that it was called with have its error; the other
    /// ids are not affected. If `loader` returns a record that it wasn't asked for, each of its ids that has no record is an
    /// error.
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
    #[doc(alias("mget", "get_all"))]
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
        self.answers(ids, of_records(loader), false, value)
    }

    /// Like [`get_many`](Self::get_many), with a loader that answers for each id: a record or none and how it is to be stored, or
    /// an error, which is the result of that id alone.
    ///
    /// # Errors
    ///
    /// For each id as for [`get`](Self::get). If `loader` fails as a whole, all ids that it was called with have its error. An id
    /// for which it has no answer is an error, and nothing is cached for it.
    ///
    /// # Cancel safety
    ///
    /// As [`get`](Self::get).
    ///
    /// # Examples
    ///
    /// ```
    /// # use cache_aside::{Backend, BoxError, Cache, Cacheable, Loaded};
    /// # #[derive(Debug, Cacheable)]
    /// # struct Product { #[cacheable(id)] id: u64, stock: u32 }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// # let products: Cache<Product> = Cache::new(Backend::connect("memory://").await?);
    /// let found = products.get_many_with([7, 8], |ids| async move {
    ///     let answers = ids.into_iter().map(|id| match id {
    ///         7 => (id, Ok(Loaded::record(Product { id, stock: 42 }))),
    ///         _ => (id, Err("the shard is down")),
    ///     });
    ///     Ok::<_, BoxError>(answers.collect::<Vec<_>>())
    /// });
    /// let found = found.await;
    /// assert!(found[0].is_ok() && found[1].is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_many_with<'a, I, K, F, Fut, R, E, O>(
        &self,
        ids: I,
        loader: F,
    ) -> BoxFuture<'a, Vec<Result<Option<Arc<T>>, Error>>>
    where
        I: IntoIterator<Item = K>,
        K: CacheKey<T::Id> + 'a,
        T::Id: CacheKey<T::Id>,
        F: Fn(Vec<T::Id>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        R: IntoIterator<Item = (T::Id, Result<Loaded<T>, O>)>,
        E: Into<BoxError> + 'static,
        O: Into<BoxError> + 'static,
    {
        self.answers(ids, of_answers(loader), false, value)
    }

    /// Like [`get_many`](Self::get_many), but also reports where each record came from.
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
        self.answers(ids, of_records(loader), true, Lookup::from)
    }

    pub(super) fn answers<'a, K: CacheKey<T::Id> + 'a, A: 'a>(
        &self,
        ids: impl IntoIterator<Item = K>,
        loader: ManyLoader,
        is_lookup: bool,
        typed: fn(Answer) -> A,
    ) -> BoxFuture<'a, Vec<Result<A, Error>>> {
        let (mut asked, mut different) = (Asked::default(), Vec::new());
        for id in ids {
            if asked.add(&self.core, self.core.keys.key(&id)) {
                different.push(Some(id));
            }
        }
        let core = self.core.shard();
        let mut take_id = move |place: usize| -> ErasedId {
            let id: Option<K> = different[place].take();
            Box::new(id.expect(TAKEN_ONCE).into_id())
        };
        let answers = async move { core.get_many(asked, &mut take_id, loader, is_lookup).await };
        answers.map(move |answers| answers.into_iter().map(|answer| answer.map(typed)).collect()).boxed()
    }
}

/// Erases the types of a loader of many records. None of an id: the primary has no such record.
pub(super) fn of_records<T, F, Fut, R, E>(loader: F) -> ManyLoader
where
    T: Cacheable,
    F: Fn(Vec<T::Id>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, E>> + Send + 'static,
    R: IntoIterator<Item = T>,
    E: Into<BoxError> + 'static,
{
    let with_id = |record: T| {
        let id = KeySpace::id_text(&mut |out| record.write_id(out));
        (id, Ok(read::Loaded::new(Some(record))))
    };
    together::<T, _, _, _, _>(loader, with_id, false)
}

/// Erases the types of a loader that answers for each id.
fn of_answers<T, F, Fut, R, E, O>(loader: F) -> ManyLoader
where
    T: Cacheable<Id: CacheKey<T::Id>>,
    F: Fn(Vec<T::Id>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, E>> + Send + 'static,
    R: IntoIterator<Item = (T::Id, Result<Loaded<T>, O>)>,
    E: Into<BoxError> + 'static,
    O: Into<BoxError> + 'static,
{
    let erased = |(id, loaded): (T::Id, Result<Loaded<T>, O>)| {
        let loaded = loaded.map(Loaded::erase).map_err(|error| Cause::new(error::boxed(error)));
        (KeySpace::id_text(&mut |out| id.write_parts(out)), loaded)
    };
    together::<T, _, _, _, _>(loader, erased, true)
}

/// Erases the types of a loader of which `erase` erases each answer.
fn together<T, F, Fut, R, E>(loader: F, erase: fn(R::Item) -> LoadedOne, answers_each: bool) -> ManyLoader
where
    T: Cacheable,
    F: Fn(Vec<T::Id>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, E>> + Send + 'static,
    R: IntoIterator<Item: 'static>,
    E: Into<BoxError> + 'static,
{
    let run = move |ids| {
        let loading = loader(typed_ids::<T>(ids)).map(move |loaded| match loaded {
            Ok(answers) => Ok(answers.into_iter().map(erase).collect()),
            Err(error) => Err(error::boxed(error)),
        });
        loading.boxed()
    };
    ManyLoader::Together(Arc::new(BatchLoader { run: Box::new(run), answers_each }))
}

fn typed_ids<T: Cacheable>(ids: Vec<ErasedId>) -> Vec<T::Id> {
    ids.into_iter().flat_map(ErasedId::downcast).map(|id| *id).collect()
}
