//! The spans of calls and loads. They show keys only if the debug level is enabled, since keys contain ids.

use tracing::field::{Empty, display};
use tracing::{Level, Span, info_span};

use crate::record::{Key, Shape};

/// The caller records `outcome`, and `reason` if the cache is bypassed.
pub(crate) fn get(shape: &Shape, key: &Key) -> Span {
    let entity = shape.schema.entity;
    with_key(info_span!("cache.get", entity, key = Empty, outcome = Empty, reason = Empty), key)
}

pub(crate) fn get_many(shape: &Shape, ids: usize) -> Span {
    info_span!("cache.get_many", entity = shape.schema.entity, ids)
}

/// `is_batched`: whether the load is a part of a call, which has the span.
pub(crate) fn load(shape: &Shape, key: &Key, is_batched: bool) -> Span {
    if is_batched {
        return Span::none();
    }
    let entity = shape.schema.entity;
    with_key(info_span!("cache.load", entity, key = Empty, error = Empty, otel.status_code = Empty), key)
}

pub(crate) fn load_many(shape: &Shape, ids: usize) -> Span {
    info_span!("cache.load", entity = shape.schema.entity, ids, error = Empty, otel.status_code = Empty)
}

pub(crate) fn update(shape: &Shape, key: &Key) -> Span {
    with_key(info_span!("cache.update", entity = shape.schema.entity, key = Empty), key)
}

pub(crate) fn invalidate(shape: &Shape, key: &Key) -> Span {
    with_key(info_span!("cache.invalidate", entity = shape.schema.entity, key = Empty), key)
}

pub(crate) fn invalidate_many(shape: &Shape, ids: usize) -> Span {
    info_span!("cache.invalidate_many", entity = shape.schema.entity, ids)
}

pub(crate) fn clear(shape: &Shape) -> Span {
    info_span!("cache.clear", entity = shape.schema.entity)
}

fn with_key(span: Span, key: &Key) -> Span {
    if tracing::enabled!(Level::DEBUG) {
        span.record("key", display(key));
    }
    span
}
