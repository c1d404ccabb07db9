//! The spans that `tracing` shows: what is under way, for which entity. A key holds an id, so it stands in a span only where
//! somebody looks at debug level.

use tracing::field::{Empty, display};
use tracing::{Level, Span, info_span};

use crate::cacheable::Cacheable;
use crate::key::Key;

/// The caller records the `outcome`.
pub(crate) fn get<T: Cacheable>(key: &Key) -> Span {
    with_key(info_span!("cache.get", entity = T::SCHEMA.entity, key = Empty, outcome = Empty), key)
}

/// Of many keys at once.
pub(crate) fn get_many<T: Cacheable>(ids: usize) -> Span {
    info_span!("cache.get_many", entity = T::SCHEMA.entity, ids)
}

pub(crate) fn load<T: Cacheable>(key: &Key) -> Span {
    with_key(info_span!("cache.load", entity = T::SCHEMA.entity, key = Empty), key)
}

pub(crate) fn update<T: Cacheable>(key: &Key) -> Span {
    with_key(info_span!("cache.update", entity = T::SCHEMA.entity, key = Empty), key)
}

pub(crate) fn invalidate<T: Cacheable>(key: &Key) -> Span {
    with_key(info_span!("cache.invalidate", entity = T::SCHEMA.entity, key = Empty), key)
}

fn with_key(span: Span, key: &Key) -> Span {
    if tracing::enabled!(Level::DEBUG) {
        span.record("key", display(key));
    }
    span
}
