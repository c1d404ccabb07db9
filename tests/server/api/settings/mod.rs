//! The effect of each setting, and the values that are refused; a file for each group of settings.

mod lifetimes;
mod loads;
mod outage;
mod storage;
mod validation;

use cache_aside::{Backend, BoxError, Cacheable};

#[derive(Debug, Clone, PartialEq, Cacheable)]
#[cacheable(ttl = "30s", not_found_ttl = "2s")]
struct Item {
    #[cacheable(id)]
    id: u64,
}

async fn item(id: u64) -> Result<Option<Item>, BoxError> {
    Ok(Some(Item { id }))
}

async fn no_item(_id: u64) -> Result<Option<Item>, BoxError> {
    Ok(None)
}

async fn backend() -> Backend {
    Backend::connect("memory://").await.unwrap()
}
