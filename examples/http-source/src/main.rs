//! A loader over HTTP: a source that sends `ETag` and `Cache-Control`, and a service that caches its answers for as long
//! as it says. Both run in this process, which asks the service a few times, prints what both answer, and ends:
//!
//! ```sh
//! cargo run -p http-source
//! CACHE_URL=redis://127.0.0.1:6379 cargo run -p http-source
//! ```
//!
//! Read `service.rs`: it has the loader. `source.rs` is the other end.

mod service;
mod source;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::CACHE_CONTROL;
use cache_aside::{Backend, BoxError};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::service::Shop;
use crate::source::{MAX_AGE, Source};

/// Cheap to clone; clones share their connections.
pub(crate) type Http = Client<HttpConnector, Body>;

/// Larger bodies are errors.
pub(crate) const MAX_BODY_BYTES: usize = 64 * 1024;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = std::env::var("CACHE_URL").unwrap_or_else(|_| "memory://".into());
    let http: Http = Client::builder(TokioExecutor::new()).build_http();
    let source = Arc::new(Source::new());
    let source_url = served(source::routes(source.clone())).await?;
    // Longer than the default, for machines that are busy building.
    let backend = Backend::builder(&url).operation_timeout(Duration::from_secs(5)).connect().await?;
    let shop = Arc::new(Shop::new(backend, http.clone(), source_url));
    shop.changed(7).await?; // a server may have its entry from an earlier run
    let service_url = served(service::routes(shop.clone())).await?;
    let get = async |id: u64| get(&http, &service_url, id).await;

    println!("-- The first get asks the source, the second doesn't.");
    get(7).await?;
    get(7).await?;

    println!("-- After `max-age` a get has the old record, and the source is asked whether it has changed.");
    sleep(MAX_AGE).await;
    get(7).await?;
    while get(7).await? == "no-cache" {
        sleep(Duration::from_millis(100)).await;
    }

    println!("-- The record changes. If the service learns of that, it doesn't wait for the end of `max-age`.");
    source.sell();
    shop.changed(7).await?;
    get(7).await?;

    println!("-- That there is no such record is remembered too.");
    get(404).await?;
    get(404).await?;
    Ok(())
}

/// Serves on a free port. Returns the URL.
async fn served(routes: Router) -> Result<String, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(axum::serve(listener, routes).into_future());
    Ok(url)
}

/// Asks the service as a browser would, prints its answer, and returns its `Cache-Control`.
async fn get(http: &Http, service: &str, id: u64) -> Result<String, BoxError> {
    let answer = http.get(format!("{service}/products/{id}").parse()?).await?;
    let status = answer.status().as_u16();
    let cache_control = answer.headers().get(CACHE_CONTROL).map_or(Ok(""), |value| value.to_str())?.to_owned();
    let body = to_bytes(Body::new(answer.into_body()), MAX_BODY_BYTES).await?;
    println!("service: GET /products/{id}: {status}, {cache_control} {}", String::from_utf8_lossy(&body));
    Ok(cache_control)
}
