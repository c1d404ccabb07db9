//! The `tracing` spans of calls and loads. Keys contain ids, so spans show them only if the debug level is enabled.

use tracing::field::{Empty, display};
use tracing::{Level, Span, info_span};

use crate::record::{Key, Shape};

/// The caller records `outcome`.
pub(crate) fn get(shape: &Shape, key: &Key) -> Span {
    with_key(info_span!("cache.get", entity = shape.schema.entity, key = Empty, outcome = Empty), key)
}

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
