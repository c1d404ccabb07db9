//! The routes: checks the parameters, calls the shop, and answers in JSON.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Extension, Json, Router, middleware};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::experiments::{Race, Stampede};
use crate::failure::Failure;
use crate::figures::{Figures, millis};
use crate::guard::{self, Loopback};
use crate::params::Params;
use crate::primary::Product;
use crate::service::{Read, Shop, Stored, Written};
use crate::{events, metrics, page};

const MAX_READERS: usize = 1000;
pub(crate) const MAX_LATENCY_MS: u64 = 5000;

type Answer<T> = Result<Json<T>, Failure>;

/// All routes; `stopping` becomes true when the server is about to stop.
pub(crate) fn router(shop: Arc<Shop>, loopback: Loopback, stopping: watch::Receiver<bool>) -> Router {
    let api = Router::new()
        .route("/products", get(products))
        .route("/read", get(read))
        .route("/inspect", get(inspect))
        .route("/stats", get(stats))
        .route("/metrics", get(metrics::export))
        .route("/events", get(events::stream).layer(Extension(stopping)))
        .route("/invalidate", post(invalidate))
        .route("/expire", post(expire))
        .route("/update", post(update))
        .route("/update-cached", post(update_cached))
        .route("/create", post(create))
        .route("/stampede", post(stampede))
        .route("/race", post(race))
        .route("/outage", post(outage))
        .route("/near-cache", post(near_cache))
        .route("/latency", post(latency))
        .route("/primary-fails", post(primary_fails))
        .route("/reset", post(reset))
        .with_state(shop);
    page::routes()
        .merge(api)
        .fallback(nothing_here)
        .method_not_allowed_fallback(other_method)
        .layer(middleware::from_fn(guard::same_site))
        .layer(middleware::from_fn_with_state(loopback, guard::known_host))
        .layer(middleware::from_fn(guard::headers))
}

async fn products(State(shop): State<Arc<Shop>>) -> Answer<Vec<Product>> {
    Ok(Json(shop.primary.all().await?))
}

async fn read(State(shop): State<Arc<Shop>>, params: Params) -> Answer<Read> {
    Ok(Json(shop.read(params.id()?).await?))
}

async fn inspect(State(shop): State<Arc<Shop>>, params: Params) -> Answer<Stored> {
    Ok(Json(shop.inspect(params.id()?).await?))
}

async fn stats(State(shop): State<Arc<Shop>>) -> Json<Figures> {
    Json(shop.figures())
}

async fn invalidate(State(shop): State<Arc<Shop>>, params: Params) -> Answer<Written> {
    Ok(Json(shop.invalidate(params.id()?).await?))
}

async fn expire(State(shop): State<Arc<Shop>>, params: Params) -> Answer<Stored> {
    Ok(Json(shop.expire(params.id()?).await?))
}

async fn update(State(shop): State<Arc<Shop>>, params: Params) -> Answer<Written> {
    Ok(Json(shop.update(params.id()?, params.edit()?).await?))
}

async fn update_cached(State(shop): State<Arc<Shop>>, params: Params) -> Answer<Written> {
    Ok(Json(shop.update_cached(params.id()?, params.edit()?).await?))
}

async fn create(State(shop): State<Arc<Shop>>, params: Params) -> Result<(StatusCode, Json<Written>), Failure> {
    let product = Product {
        id: params.short_text("id")?.to_owned(),
        name: params.short_text("name")?.to_owned(),
        price_cents: params.number("price_cents")?,
        stock: params.number("stock")?,
    };
    Ok((StatusCode::CREATED, Json(shop.create(product).await?)))
}

async fn stampede(State(shop): State<Arc<Shop>>, params: Params) -> Answer<Stampede> {
    Ok(Json(shop.stampede(params.id()?, params.number_in("concurrency", 1..=MAX_READERS)?).await?))
}

async fn race(State(shop): State<Arc<Shop>>, params: Params) -> Answer<Race> {
    Ok(Json(shop.race(params.id()?).await?))
}

async fn outage(State(shop): State<Arc<Shop>>, params: Params) -> Answer<Figures> {
    shop.set_outage(params.switch("on")?);
    Ok(Json(shop.figures()))
}

async fn near_cache(State(shop): State<Arc<Shop>>, params: Params) -> Answer<Figures> {
    shop.set_near_cache(params.switch("on")?)?;
    Ok(Json(shop.figures()))
}

async fn latency(State(shop): State<Arc<Shop>>, params: Params) -> Answer<Value> {
    let latency = Duration::from_millis(params.number_in("ms", 0..=MAX_LATENCY_MS)?);
    shop.primary.set_latency(latency);
    Ok(Json(json!({ "read_latency_ms": millis(latency) })))
}

async fn primary_fails(State(shop): State<Arc<Shop>>, params: Params) -> Answer<Figures> {
    shop.primary.set_fails(params.switch("on")?);
    Ok(Json(shop.figures()))
}

/// Takes no parameters, but limits the body too.
async fn reset(State(shop): State<Arc<Shop>>, _: Params) -> Json<Figures> {
    shop.reset();
    Json(shop.figures())
}

async fn nothing_here(uri: Uri) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()))
}

async fn other_method() -> impl IntoResponse {
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "this address takes another method: see `Allow`")
}
