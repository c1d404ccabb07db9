//! What is private elsewhere, for proofs to look at.

use std::sync::Arc;

pub use crate::backend::{Moment, Point, Rig, Step};
use crate::cache::Cache;
use crate::error::{BoxError, Error};
use crate::record::{CacheKey, Cacheable, Entry, Found, Hash, KeySpace, Reading, RecordWriter, Shape, entry, shape};

/// The names and values of a hash.
pub type StoredHash = Vec<(Vec<u8>, Vec<u8>)>;

/// What a reader makes of a stored hash: a record, `None` for a not-found entry, or why it is unreadable.
///
/// # Errors
///
/// Whatever makes an entry a miss.
pub fn decode<T: Cacheable>(fields: StoredHash) -> Result<Option<T>, BoxError> {
    let fields = fields.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    match (Found { entry: Entry::Hash(Hash::Whole(Arc::new(fields))), left: None }).read(Shape::of::<T>()) {
        Reading::Record(record) | Reading::Stale(record, _) => Ok(Arc::into_inner(shape::typed(record))),
        Reading::NotFound => Ok(None),
        Reading::Unreadable(cause) => Err(cause),
    }
}

/// The hash that a record is stored as.
///
/// # Errors
///
/// A value that can't be encoded.
pub fn encode<T: Cacheable>(record: &T) -> Result<StoredHash, BoxError> {
    let mut writer = RecordWriter::default();
    record.encode(&mut writer);
    Ok(entry::stored(writer.finish()?).into_iter().map(|(name, value)| (name.into_owned(), value)).collect())
}

/// The keys of an id: the entry's and the lease's.
///
/// # Errors
///
/// [`Error::InvalidId`].
pub fn keys<T: Cacheable>(id: &impl CacheKey<T::Id>) -> Result<(String, String), Error> {
    let key = KeySpace::new(T::SCHEMA.namespace, &T::SCHEMA).key(id)?;
    Ok((key.to_string(), key.lock().to_owned()))
}

/// How many flights are under way, through the cache and around it.
pub fn flights<T: Cacheable>(cache: &Cache<T>) -> usize {
    cache.flights()
}
