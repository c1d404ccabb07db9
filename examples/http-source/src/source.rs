//! The source: one product, with an `ETag` that changes when it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

/// How long an answer may be used.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(3);

pub(crate) struct Source {
    stock: AtomicU32,
}

impl Source {
    pub(crate) fn new() -> Self {
        Self { stock: AtomicU32::new(42) }
    }

    pub(crate) fn sell(&self) {
        self.stock.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(crate) fn routes(source: Arc<Source>) -> Router {
    Router::new().route("/products/{id}", get(product)).with_state(source)
}

async fn product(State(source): State<Arc<Source>>, Path(id): Path<u64>, headers: HeaderMap) -> Response {
    let stock = source.stock.load(Ordering::Relaxed);
    let (etag, asked) = (format!("\"stock-{stock}\""), headers.get(IF_NONE_MATCH));
    let sent = [(ETAG, etag.clone()), (CACHE_CONTROL, format!("max-age={}", MAX_AGE.as_secs()))];
    let answer = if id != 7 {
        StatusCode::NOT_FOUND.into_response()
    } else if asked.is_some_and(|known| *known == etag) {
        (StatusCode::NOT_MODIFIED, sent).into_response()
    } else {
        (sent, Json(json!({ "id": id, "name": "Sourdough Loaf", "stock": stock }))).into_response()
    };
    println!(" source: GET /products/{id}, If-None-Match {asked:?}: {}", answer.status().as_u16());
    answer
}
