use std::hint::black_box;
use std::pin::Pin;

use serde::{Deserialize, Serialize};

use crate::cache::{BoxError, Cache, Cached, Lookup};

type Id = u64;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    id: Id,
    // fields
}

impl Cached for Record {
    type Id = Id;

    const ENTITY: &'static str = "Record";

    fn id(&self) -> Id {
        self.id.clone()
    }
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

async fn get(cache: &Cache, id: Id) -> Result<Option<Record>, BoxError> {
    cache.get(&id, || find(id.clone())).await
}

async fn lookup(cache: &Cache, id: Id) -> Result<Lookup<Record>, BoxError> {
    cache.lookup(&id, || find(id.clone())).await
}

async fn update(cache: &Cache, id: Id) -> Result<bool, BoxError> {
    cache.update::<Record>(&id, |record| record.first_field = Default::default()).await
}

async fn invalidate(cache: &Cache, id: Id) -> Result<bool, BoxError> {
    cache.invalidate::<Record>(&id).await
}

async fn get_many(cache: &Cache, ids: Vec<Id>) -> Result<Vec<Option<Record>>, BoxError> {
    cache.get_many(&ids, find_many).await
}

pub fn run(cache: Cache, operation: String, id: String) -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>> {
    Box::pin(async move {
        let id = id.parse::<Id>()?;
        match operation.as_str() {
            "get" => drop(black_box(get(&cache, id).await?)),
            "lookup" => drop(black_box(lookup(&cache, id).await?)),
            "update" => drop(black_box(update(&cache, id).await?)),
            "invalidate" => drop(black_box(invalidate(&cache, id).await?)),
            _ => drop(black_box(get_many(&cache, vec![id]).await?)),
        }
        Ok(())
    })
}
