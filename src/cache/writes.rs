//! The writes of a [`Cache`]: updates in place, and invalidation.

use std::any::Any;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::Cache;
use crate::error::Error;
use crate::record::{CacheKey, Cacheable, Change, Field, typed};

impl<T: Cacheable> Cache<T> {
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
    pub fn update_field<V>(
        &self,
        id: impl CacheKey<T::Id>,
        field: Field<T, V>,
        value: V,
    ) -> BoxFuture<'_, Result<bool, Error>> {
        self.update_fields(id, [field.set(value)])
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
    pub fn update_fields(
        &self,
        id: impl CacheKey<T::Id>,
        changes: impl IntoIterator<Item = Change<T>>,
    ) -> BoxFuture<'_, Result<bool, Error>> {
        self.core.update_fields(self.key(id), changes.into_iter().map(|change| change.change).collect())
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
    pub fn modify<'a>(
        &'a self,
        id: impl CacheKey<T::Id>,
        mut change: impl FnMut(&mut T) + Send + 'a,
    ) -> BoxFuture<'a, Result<Option<Arc<T>>, Error>> {
        let change = Box::new(move |record: &mut dyn Any| record.downcast_mut().map_or((), &mut change));
        self.core.modify(self.key(id), change).map(|modified| Ok(modified?.map(typed))).boxed()
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
    pub fn invalidate(&self, id: impl CacheKey<T::Id>) -> BoxFuture<'_, Result<bool, Error>> {
        self.core.invalidate_when_polled(self.key(id))
    }

    /// Invalidates many records; the results have the order and the number of the ids.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, some entries are removed; the others are tried again as after an error. One that was
    /// never polled has done nothing.
    pub fn invalidate_many<K: CacheKey<T::Id>>(
        &self,
        ids: impl IntoIterator<Item = K>,
    ) -> BoxFuture<'_, Vec<Result<bool, Error>>> {
        self.core.invalidate_many(ids.into_iter().map(|id| self.key(id)).collect())
    }
}
