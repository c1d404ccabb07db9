use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;

use cache_aside::{Backend, BoxError, Cache, Cacheable, Error, Lookup};

type Id = u64;

#[derive(Debug, Default, Cacheable)]
#[cacheable(namespace = "shop", ttl = "60s")]
struct Record {
    #[cacheable(id)]
    id: Id,
    // fields
}

/// Stands in for a query of the primary database.
async fn find(id: Id) -> Result<Option<Record>, BoxError> {
    tokio::task::yield_now().await;
    Ok(black_box(Some(Record { id, ..Record::default() })))
}

async fn find_many(ids: Vec<Id>) -> Result<Vec<Record>, BoxError> {
    tokio::task::yield_now().await;
    Ok(black_box(ids.into_iter().map(|id| Record { id, ..Record::default() }).collect()))
}

async fn get(cache: &Cache<Record>, id: Id) -> Result<Option<Arc<Record>>, Error> {
    cache.get(id, find).await
}

async fn lookup(cache: &Cache<Record>, id: Id) -> Result<Lookup<Record>, Error> {
    cache.lookup(id, find).await
}

async fn update(cache: &Cache<Record>, id: Id) -> Result<bool, Error> {
    cache.update_field(id, Record::FIELDS.first_field, Default::default()).await
}

async fn invalidate(cache: &Cache<Record>, id: Id) -> Result<bool, Error> {
    cache.invalidate(id).await
}

async fn get_many(cache: &Cache<Record>, ids: Vec<Id>) -> Vec<Result<Option<Arc<Record>>, Error>> {
    cache.get_many(ids, find_many).await
}

pub fn run(
    backend: Backend,
    operation: String,
    id: String,
) -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>> {
    Box::pin(async move {
        let (cache, id) = (Cache::new(backend), id.parse::<Id>()?);
        match operation.as_str() {
            "get" => drop(black_box(get(&cache, id).await?)),
            "lookup" => drop(black_box(lookup(&cache, id).await?)),
            "update" => drop(black_box(update(&cache, id).await?)),
            "invalidate" => drop(black_box(invalidate(&cache, id).await?)),
            _ => drop(black_box(get_many(&cache, vec![id]).await)),
        }
        Ok(())
    })
}
