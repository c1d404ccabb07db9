//! The spans that `tracing` shows: what is under way, for which entity. A key holds an id, so it stands in a span only where
//! somebody looks at debug level.

use tracing::field::{Empty, display};
use tracing::{Level, Span, info_span};

use crate::record::{Key, Shape};

/// The caller records the `outcome`.
pub(crate) fn get(shape: &Shape, key: &Key) -> Span {
    with_key(info_span!("cache.get", entity = shape.schema.entity, key = Empty, outcome = Empty), key)
}

/// Of many keys at once.
pub(crate) fn get_many(shape: &Shape, ids: usize) -> Span {
    info_span!("cache.get_many", entity = shape.schema.entity, ids)
}

pub(crate) fn load(shape: &Shape, key: &Key) -> Span {
    with_key(info_span!("cache.load", entity = shape.schema.entity, key = Empty), key)
}

pub(crate) fn update(shape: &Shape, key: &Key) -> Span {
    with_key(info_span!("cache.update", entity = shape.schema.entity, key = Empty), key)
}

pub(crate) fn invalidate(shape: &Shape, key: &Key) -> Span {
    with_key(info_span!("cache.invalidate", entity = shape.schema.entity, key = Empty), key)
}

fn with_key(span: Span, key: &Key) -> Span {
    if tracing::enabled!(Level::DEBUG) {
        span.record("key", display(key));
    }
    span
}
