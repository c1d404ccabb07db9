//! A loader's error is passed on: its text in the chain of sources, its type by `downcast_ref`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::error::Error as _;
use std::io;
use std::time::Duration;

use anyhow::Context as _;
use cache_aside::{Backend, BoxError, Cache, Cacheable, Error};

#[derive(Debug, Cacheable)]
struct Item {
    #[cacheable(id)]
    id: u64,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("row {0} is locked")]
struct Locked(u64);

#[derive(Debug, thiserror::Error)]
#[error("the query failed")]
struct QueryFailed(#[source] Locked);

async fn load_fails_with<E: Into<BoxError> + Send + 'static>(error: E) -> Error {
    let cache: Cache<Item> = Cache::new(Backend::connect("memory://").await.unwrap());
    let error = cache.get(7, move |_| async move { Err(error) }).await.unwrap_err();
    assert!(matches!(error, Error::Load { .. }), "{error:?}");
    assert_eq!(error.to_string(), "loading cache:item:7 failed");
    error.clone()
}

#[tokio::test]
async fn a_plain_error_is_found() {
    let error = load_fails_with(Locked(7)).await;
    assert_eq!(error.downcast_ref::<Locked>(), Some(&Locked(7)));
    assert_eq!(error.source().unwrap().to_string(), "row 7 is locked");
    assert!(error.downcast_ref::<io::Error>().is_none());
}

#[tokio::test]
async fn an_error_behind_another_is_found() {
    let error = load_fails_with(QueryFailed(Locked(7))).await;
    assert_eq!(error.downcast_ref::<Locked>(), Some(&Locked(7)));
    assert!(error.downcast_ref::<QueryFailed>().is_some());
}

#[tokio::test]
async fn a_boxed_error_is_found() {
    for error in [
        load_fails_with(BoxError::from(Locked(7))).await,
        load_fails_with(Box::new(Locked(7))).await,
        load_fails_with(std::sync::Arc::new(Locked(7))).await,
        load_fails_with(io::Error::other(Locked(7))).await,
    ] {
        assert_eq!(error.downcast_ref::<Locked>(), Some(&Locked(7)));
    }
    let text = load_fails_with("no connection").await;
    assert_eq!(text.source().unwrap().to_string(), "no connection");
}

#[tokio::test]
async fn an_error_in_anyhow_is_found_with_and_without_context() {
    let plain = load_fails_with(anyhow::Error::new(Locked(7))).await;
    assert_eq!(plain.downcast_ref::<Locked>(), Some(&Locked(7)));
    assert_eq!(plain.source().unwrap().to_string(), "row 7 is locked");

    let with_context = Err::<(), _>(Locked(7)).context("reading the item").context("serving the page").unwrap_err();
    let error = load_fails_with(with_context).await;
    assert_eq!(error.downcast_ref::<Locked>(), Some(&Locked(7)));
    assert_eq!(error.source().unwrap().to_string(), "serving the page");

    let text = load_fails_with(anyhow::anyhow!("no connection")).await;
    assert_eq!(text.source().unwrap().to_string(), "no connection");
}

#[tokio::test]
async fn a_loading_cache_passes_errors_on_the_same() {
    let cache: Cache<Item> = Cache::new(Backend::connect("memory://").await.unwrap());
    let cache = cache.with_loader(|_| async { Err(anyhow::Error::new(Locked(7))) });
    assert_eq!(cache.get(7).await.unwrap_err().downcast_ref::<Locked>(), Some(&Locked(7)));
}

#[tokio::test]
async fn an_error_that_a_test_makes_looks_like_that_of_a_cache() {
    let (made, real) = (Error::load("cache:item:7", Locked(7)), load_fails_with(Locked(7)).await);
    assert_eq!(format!("{made:?}"), format!("{real:?}"));
    let made = Error::load("cache:item:7", anyhow::Error::new(Locked(7)));
    assert_eq!(made.downcast_ref::<Locked>(), Some(&Locked(7)));
    let made = Error::backend("read cache:item:7", Locked(7));
    assert!(matches!(&made, Error::Backend { action, .. } if action == "read cache:item:7"));
    assert_eq!(made.downcast_ref::<Locked>(), Some(&Locked(7)));
    let made = Error::timeout("loading cache:item:7", Duration::from_secs(30));
    assert!(made.to_string().starts_with("loading cache:item:7 did not end within 30s"), "{made}");
}
