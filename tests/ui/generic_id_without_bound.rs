use cache_aside::{Cache, Cacheable, Error};

async fn forget<T: Cacheable>(cache: &Cache<T>, id: T::Id) -> Result<bool, Error> {
    cache.invalidate(id).await
}

fn main() {}
