//! The writes of a [`Cache`]: updates in place, invalidation, and clearing.

use std::any::Any;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::Cache;
use crate::error::Error;
use crate::record::{CacheKey, Cacheable, Change, Field, typed};

impl<T: Cacheable> Cache<T> {
    /// Sets one field of a cached record, after the field was written to the primary. Returns `true` if the update was
    /// applied to a live record. `false` means that there was nothing to update, and that the next `get` loads.
    ///
    /// The last call wins, so [the promise](Self#the-promise) holds only if the writers of a record are serialised from their
    /// commit to the end of this call. Otherwise use [`invalidate`](Self::invalidate).
    ///
    /// The entry is removed, and the result is `false`, if the update would make the record too large, if the value can't be
    /// encoded, if the server refuses the update or the connection for it (it is out of memory, or has no `WATCH`), if the connection
    /// is lost before the update is confirmed, if a field of the record is stored under an `alias` or has a text that only the
    /// variant `other` of an enum stands for, or if the record is stale.
    ///
    /// The versions that the struct's `also_invalidates` lists are invalidated at the same time, whether or not the update
    /// succeeds. The result is about this version's entry only.
    ///
    /// Redis: `WATCH`, `PTTL`, `HMGET` or `HGETALL`, `MULTI`, then `HSET` or `HDEL`, `DEL` of the lease, `EXEC`, on a
    /// connection of its own: two round trips.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] after `update_timeout`, or [`Error::Backend`]. It is unknown whether the field was set, and the entry
    /// will be invalidated: see [`pending`](Self::pending). The same applies if the key of another version failed; the error
    /// then names that key.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the field is either set or not, and the entry will be invalidated, as after an error.
    #[doc(alias("set", "put", "hset"))]
    pub fn update_field<V>(
        &self,
        id: impl CacheKey<T::Id>,
        field: Field<T, V>,
        value: V,
    ) -> BoxFuture<'static, Result<bool, Error>> {
        self.update_fields(id, [field.set(value)])
    }

    /// Sets several fields of a cached record in one step. If a field is changed twice, the later change applies.
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
    pub fn update_fields(
        &self,
        id: impl CacheKey<T::Id>,
        changes: impl IntoIterator<Item = Change<T>>,
    ) -> BoxFuture<'static, Result<bool, Error>> {
        Arc::clone(&self.core).update_fields(self.key(id), changes.into_iter().map(|change| change.fields).collect())
    }

    /// Changes a cached record with a function, and returns the record as it is then stored. `None` if there was nothing to
    /// change. Only the fields that changed are written. `change` runs again whenever another writer changes the entry at the
    /// same time. The last call wins, as for [`update_field`](Self::update_field).
    ///
    /// # Errors
    ///
    /// As [`update_field`](Self::update_field). Don't retry, which may apply the change twice: call `invalidate` instead.
    /// [`Error::InvalidId`] if `change` changed the id; nothing is written then.
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
    pub fn modify<'a>(
        &self,
        id: impl CacheKey<T::Id>,
        mut change: impl FnMut(&mut T) + Send + 'a,
    ) -> BoxFuture<'a, Result<Option<Arc<T>>, Error>> {
        let mut change_and_reset = move |record: &mut T| {
            change(record);
            record.reset_skipped();
        };
        let change = Box::new(move |record: &mut dyn Any| record.downcast_mut().map_or((), &mut change_and_reset));
        Arc::clone(&self.core).modify(self.key(id), change).map(|modified| Ok(modified?.map(typed))).boxed()
    }

    /// Removes an entry, and revokes the lease of the load that is under way, if any. Call it after every commit that changed,
    /// created or deleted the record in the primary. Returns whether there was an entry, which may be a not-found entry.
    ///
    /// The future owns what it needs, so `tokio::spawn(products.invalidate("p-001"))` works.
    ///
    /// The versions that the struct's `also_invalidates` lists are invalidated in the same call, each by its own commands, all
    /// at the same time. The result is then whether there was an entry in any version.
    ///
    /// Redis: `DEL` of the lease, then `DEL` of the entry, in one pipeline; one round trip.
    ///
    /// # Errors
    ///
    /// - [`Error::Backend`] or [`Error::Timeout`] if the cache is out of reach. The invalidation is retried in the background.
    ///   Until it is applied, this process reads the record around the cache, see [`pending`](Self::pending); other processes
    ///   may get the old entry. With several versions, the error names the first key that failed; the others were tried
    ///   nevertheless.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before the entry is removed, the invalidation is retried, as after an error. With several
    /// versions, this applies to each of them. A future that was never polled does nothing.
    #[doc(alias("remove", "delete", "evict", "del"))]
    pub fn invalidate(&self, id: impl CacheKey<T::Id>) -> BoxFuture<'static, Result<bool, Error>> {
        Arc::clone(&self.core).invalidate_when_polled(self.key(id))
    }

    /// Invalidates many records. The results have the order and the number of the ids.
    ///
    /// # Errors
    ///
    /// For each id as for [`invalidate`](Self::invalidate).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, some entries may be removed already; the invalidation of the others is retried, as after an
    /// error. A future that was never polled does nothing.
    pub fn invalidate_many<K: CacheKey<T::Id>>(
        &self,
        ids: impl IntoIterator<Item = K>,
    ) -> BoxFuture<'static, Vec<Result<bool, Error>>> {
        Arc::clone(&self.core).invalidate_many(ids.into_iter().map(|id| self.key(id)).collect())
    }

    /// Removes all entries of this struct in the cache's namespace, and revokes the leases of all its loads. Call it after a
    /// commit that changed many records in the primary. Returns how many entries were removed, not-found entries included.
    ///
    /// A `get` that starts after this call has returned never returns a record that is older than the call. The versions that
    /// the struct's `also_invalidates` lists are cleared in the same call, and counted. Other structs are not affected.
    /// Afterwards every read is a miss, so the primary gets the load of an empty cache.
    ///
    /// Redis: for each version two passes of `SCAN` over the whole keyspace of each server, other keys included, in steps of
    /// 500 keys; and a `DEL` for each key that is removed. The server answers other commands between the steps. There is no limit
    /// for the whole call: each command may take eight times `operation_timeout`. In a cluster it fails while slots are moving.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`] or [`Error::Timeout`] if a server is out of reach, or another one took over meanwhile. Some entries
    /// may have been removed. The call is retried in the background. Until it has succeeded, this process reads all records of
    /// the struct around the cache, see [`pending`](Self::pending); other processes may get old entries.
    ///
    /// If the server forbids `SCAN` or doesn't know it, the error is an [`Error::Backend`], but no entry has been removed and
    /// nothing is retried: fix the server's ACL, and call it again.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the call is retried, as after an error. A future that was never polled does
    /// nothing.
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
    /// # let load = |id| async move { Ok::<_, BoxError>(Some(Product { id, stock: 42 })) };
    /// products.get(7, load).await?;
    /// products.get(8, load).await?;
    /// assert_eq!(products.clear().await?, 2);
    /// assert!(products.peek(7).await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("flush", "delete_all", "invalidate_all"))]
    pub fn clear(&self) -> BoxFuture<'static, Result<u64, Error>> {
        Arc::clone(&self.core).clear()
    }
}
