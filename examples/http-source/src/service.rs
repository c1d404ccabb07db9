//! The service: its cache, the loader that asks the source, and the answer to browsers.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use cache_aside::{Backend, BoxError, Cache, Cacheable, Error, Load, Loaded};
use serde::{Deserialize, Serialize};

use crate::{Http, MAX_BODY_BYTES};

/// How long it is remembered that the source has no such product.
const NOT_FOUND_TTL: Duration = Duration::from_secs(10);

/// `stale_while_revalidate` keeps a record past its TTL, so that the source can be asked whether it has changed, and so
/// that nobody waits for the source meanwhile.
#[derive(Debug, Serialize, Deserialize, Cacheable)]
#[cacheable(namespace = "http_source", ttl = "1m", stale_while_revalidate = "10m")]
struct Product {
    #[cacheable(id)]
    id: u64,
    name: String,
    stock: u32,
    /// The source's name for this version of the record: in its headers, and not in the body.
    #[serde(skip)]
    #[cacheable(store)]
    etag: String,
}

pub(crate) struct Shop {
    products: Cache<Product>,
    http: Http,
    source: String,
}

impl Shop {
    /// `source` is its URL.
    pub(crate) fn new(backend: Backend, http: Http, source: String) -> Self {
        Self { products: Cache::new(backend), http, source }
    }

    /// To be called when the source tells that a product has changed, by a webhook for example.
    pub(crate) async fn changed(&self, id: u64) -> Result<(), Error> {
        self.products.invalidate(id).await.map(drop)
    }
}

pub(crate) fn routes(shop: Arc<Shop>) -> Router {
    Router::new().route("/products/{id}", get(product)).with_state(shop)
}

/// Lets browsers keep the answer as long as the cache will.
async fn product(State(shop): State<Arc<Shop>>, Path(id): Path<u64>) -> Response {
    let (http, source) = (shop.http.clone(), shop.source.clone());
    let found = match shop.products.lookup_with(id, move |load| ask(http, source, load)).await {
        Ok(found) => found,
        Err(error) => return (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    };
    // There is no TTL if the record is stale, or is not in the cache.
    let cache_control = found.ttl.map_or_else(|| "no-cache".to_owned(), |ttl| format!("max-age={}", ttl.as_secs()));
    let headers = [(CACHE_CONTROL, cache_control)];
    match found.value {
        Some(product) => (headers, Json(product)).into_response(),
        None => (StatusCode::NOT_FOUND, headers).into_response(),
    }
}

/// The loader.
async fn ask(http: Http, source: String, load: Load<Product>) -> Result<Loaded<Product>, BoxError> {
    let mut request = Request::get(format!("{source}/products/{}", load.id()));
    if let Some(stale) = load.stale() {
        request = request.header(IF_NONE_MATCH, &stale.etag);
    }
    let answer = http.request(request.body(Body::empty())?).await?;
    let headers = answer.headers();
    let (etag, cache_control) = (text(headers, ETAG)?.to_owned(), text(headers, CACHE_CONTROL)?.to_owned());
    let loaded = match answer.status() {
        StatusCode::OK => {
            let body = to_bytes(Body::new(answer.into_body()), MAX_BODY_BYTES).await?;
            Loaded::record(Product { etag, ..serde_json::from_slice(&body)? })
        }
        // The record that `load.stale()` has returned lives on.
        StatusCode::NOT_MODIFIED => Loaded::unchanged(),
        StatusCode::NOT_FOUND => return Ok(Loaded::not_found().ttl(NOT_FOUND_TTL)),
        other => return Err(format!("the source answers {other}").into()),
    };
    Ok(as_it_says(loaded, &cache_control))
}

/// Applies the source's `Cache-Control`. Without one, the cache's own settings apply.
fn as_it_says(loaded: Loaded<Product>, cache_control: &str) -> Loaded<Product> {
    let directives = || cache_control.split(',').map(str::trim);
    if directives().any(|directive| directive == "no-store") {
        return loaded.no_store();
    }
    let max_age = directives().find_map(|directive| directive.strip_prefix("max-age=")?.parse().ok());
    match max_age {
        Some(seconds) => loaded.ttl(Duration::from_secs(seconds)),
        None => loaded,
    }
}

/// The value of a header; empty if there is none.
fn text(headers: &HeaderMap, name: HeaderName) -> Result<&str, BoxError> {
    Ok(headers.get(name).map_or(Ok(""), |value| value.to_str())?)
}
