use cache_aside::{CacheId, Cacheable};

#[derive(Clone, PartialEq, Eq, Hash, CacheId)]
struct ProductId(u64);

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: ProductId,
}

#[derive(Cacheable)]
struct OrderLine {
    #[cacheable(id)]
    order: u64,
    #[cacheable(id)]
    product: ProductId,
}

fn main() {}
