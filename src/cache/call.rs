//! The typed side of one get: erases the types of its id, loader and fields for the core.

use std::fmt;
use std::marker::PhantomData;

use crate::read::{Fields, Loader, Loading, Request};
use crate::record::{CacheKey, Cacheable, FieldError, Hash, IdParts, Projection, RecordReader, Selection};

pub(super) const TAKEN_ONCE: &str = "each id of a call is loaded at most once";

/// The id and the loader of a get.
pub(super) struct Call<T, K, L> {
    id_and_loader: Option<(K, L)>,
    of: PhantomData<fn() -> T>,
}

impl<T, K, L> Call<T, K, L> {
    pub(super) fn new(id: K, loader: L) -> Self {
        Self { id_and_loader: Some((id, loader)), of: PhantomData }
    }
}

impl<T, K, L> Request for Call<T, K, L>
where
    T: Cacheable,
    K: CacheKey<T::Id>,
    L: FnOnce(T::Id) -> Loading + Send + 'static,
{
    fn write_id(&mut self, out: &mut dyn IdParts) -> fmt::Result {
        self.id_and_loader.as_ref().map_or(Err(fmt::Error), |(id, _)| id.write_parts(out))
    }

    fn loader(&mut self) -> Loader {
        let (id, loader) = self.id_and_loader.take().expect(TAKEN_ONCE);
        let id = id.into_id();
        Box::new(move || loader(id))
    }
}

/// The fields of a projection, and their values once decoded.
pub(super) struct Selected<T: Cacheable, P: Projection<T>> {
    fields: P,
    selection: Selection,
    pub(super) values: Option<P::Values>,
}

impl<T: Cacheable, P: Projection<T>> Selected<T, P> {
    pub(super) fn new(fields: P) -> Self {
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
