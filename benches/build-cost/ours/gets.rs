use cache_aside::{Backend, BoxError, Cache, Cacheable};

#[derive(Debug, Default, Cacheable)]
#[cacheable(namespace = "shop", ttl = "60s")]
struct Record {
    #[cacheable(id)]
    id: u64,
    // fields
}

/// Stands in for a query of the primary database.
async fn find(id: u64) -> Result<Option<Record>, BoxError> {
    tokio::task::yield_now().await;
    Ok(std::hint::black_box(Some(Record { id, ..Record::default() })))
}

async fn many_gets(cache: &Cache<Record>) -> Result<usize, BoxError> {
    let mut found = 0;
    found += usize::from(cache.get(1, |id| async move { find(id).await }).await?.is_some()); // again
    Ok(found)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let cache = Cache::new(Backend::connect("redis://127.0.0.1:6379").await?);
    println!("{}", many_gets(&cache).await?);
    Ok(())
}
