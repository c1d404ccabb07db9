//! Gets of some fields of a record.

use super::{Cache, Call, Outcome, plain};
use crate::error::{BoxError, Error};
use crate::read::{self, Answer, Fields, Request};
use crate::record::{CacheKey, Cacheable, FieldError, Hash, Key, Projection, RecordReader, Selection, borrowed};

impl<T: Cacheable> Cache<T> {
    /// Reads some fields of a record through the cache. A hit reads only these fields. A miss loads and stores the whole
    /// record, like [`get`](Self::get). `None` if the primary has no such record.
    ///
    /// `fields` is a tuple of handles or a single one, and the values have the same form. The other fields of the record
    /// aren't checked: only a read of the whole record detects that one of them is missing or malformed.
    ///
    /// Redis: `HMGET` of these fields, one field of the id, and `~meta`. A miss is like a miss of [`get`](Self::get).
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
        self.fields(id, fields, |_key, id| plain(move || loader(id)))
    }

    pub(super) fn fields<K, P, L>(
        &self,
        id: K,
        fields: P,
        loader: L,
    ) -> impl Future<Output = Result<Option<P::Values>, Error>> + Send + use<T, K, P, L>
    where
        K: CacheKey<T::Id>,
        P: Projection<T>,
        L: FnOnce(&Key, T::Id) -> read::Loader + Send + 'static,
    {
        let core = self.core.shard();
        let mut call = Call::<T, _, _>::new(id, loader);
        async move {
            let mut selected = Selected::<T, P>::new(fields);
            let answer = match core.near_hit(&mut |out| call.write_id(out)) {
                Some(record) => Answer::near(record),
                None => core.get(&mut call, Some(&mut selected), false).await?,
            };
            Ok(match answer.record {
                Some(record) => Some(fields.of(borrowed(&record))),
                // The values of a stale entry were decoded too, before its age was known. They may be no answer.
                None => selected.values.filter(|_| answer.outcome == Outcome::Hit || answer.outcome.is_stale()),
            })
        }
    }
}

/// The fields of a projection, and their values once decoded.
struct Selected<T: Cacheable, P: Projection<T>> {
    fields: P,
    selection: Selection,
    values: Option<P::Values>,
}

impl<T: Cacheable, P: Projection<T>> Selected<T, P> {
    fn new(fields: P) -> Self {
        let mut names = Vec::new();
        fields.add_names(&mut names);
        Self { fields, selection: Selection::with_id(names, &T::SCHEMA), values: None }
    }
}

impl<T: Cacheable, P: Projection<T>> Fields for Selected<T, P> {
    fn selection(&self) -> &Selection {
        &self.selection
    }

    fn decode(&mut self, hash: &Hash) -> Result<(), FieldError> {
        let mut reader = RecordReader::new(hash, self.selection.names().unwrap_or_default());
        self.values = Some(self.fields.decode(&mut reader)?);
        Ok(())
    }
}
