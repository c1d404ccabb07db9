mod cache;

use serde::{Deserialize, Serialize};

use self::cache::{BoxError, Cache, Cached};

#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    id: u64,
    // fields
}

impl Cached for Record {
    type Id = u64;

    const ENTITY: &'static str = "Record";

    fn id(&self) -> u64 {
        self.id
    }
}

/// Stands in for a query of the primary database.
async fn find(id: u64) -> Result<Option<Record>, BoxError> {
    tokio::task::yield_now().await;
    Ok(std::hint::black_box(Some(Record { id, ..Record::default() })))
}

async fn many_gets(cache: &Cache) -> Result<usize, BoxError> {
    let mut found = 0;
    found += usize::from(cache.get(&1, || async { find(1).await }).await?.is_some()); // again
    Ok(found)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let cache = Cache::connect("redis://127.0.0.1:6379").await?;
    println!("{}", many_gets(&cache).await?);
    Ok(())
}
