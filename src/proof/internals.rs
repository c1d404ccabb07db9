//! Access to internals, for proofs.

use std::sync::Arc;

pub use crate::backend::{Failpoint, Phase, Rig, Step};
use crate::cache::Cache;
use crate::error::{BoxError, Error};
use crate::record::{
    CacheKey, Cacheable, Entry, Found, Hash, KeySpace, Reading, RecordWriter, Shape, TypeNames, check_key_prefix,
    entry, typed,
};

/// The names and values of a hash.
pub type StoredHash = Vec<(Vec<u8>, Vec<u8>)>;

/// Decodes a stored hash: a record, `None` for a not-found entry, or why it is unreadable.
///
/// # Errors
///
/// Anything that makes an entry count as a miss.
pub fn decode<T: Cacheable>(fields: StoredHash) -> Result<Option<T>, BoxError> {
    let fields = fields.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    match (Found { entry: Entry::Hash(Hash::Whole(Arc::new(fields))), left: None }).read(Shape::of::<T>()) {
        Reading::Record(record) | Reading::Stale(record, _) => Ok(Arc::into_inner(typed(record))),
        Reading::NotFound => Ok(None),
        Reading::Unreadable(cause) => Err(cause),
    }
}

/// Encodes a record as it is stored.
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
    keys_of(&KeySpace::new("", T::SCHEMA.namespace, &T::SCHEMA), id)
}

/// The same with a key prefix.
///
/// # Errors
///
/// [`Error::Config`] for the prefix, or [`Error::InvalidId`].
pub fn keys_under<T: Cacheable>(key_prefix: &str, id: &impl CacheKey<T::Id>) -> Result<(String, String), Error> {
    check_key_prefix(key_prefix)?;
    keys_of(&KeySpace::new(key_prefix, T::SCHEMA.namespace, &T::SCHEMA), id)
}

fn keys_of<Id>(space: &KeySpace, id: &impl CacheKey<Id>) -> Result<(String, String), Error> {
    let key = space.key(id)?;
    Ok((key.to_string(), key.lock().to_owned()))
}

/// What an entry's key was made of: the key prefix, the namespace, the entity and the id as written.
pub fn parts_of_key(key: &str) -> [&str; 4] {
    let (names, id) = key.split_at(key.rfind(':').map_or(0, |end| end + 1));
    let TypeNames { key_prefix, namespace, entity } = TypeNames::of(names);
    [key_prefix, namespace, entity, id]
}

/// The number of flights that are running, through the cache or around it.
pub fn flights<T: Cacheable>(cache: &Cache<T>) -> usize {
    cache.flights()
}
