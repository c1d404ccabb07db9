use cache_aside::{CacheId, Cacheable};

#[derive(Cacheable)]
#[cacheable(crate = "not a path")]
struct Product {
    #[cacheable(id)]
    id: String,
}

#[derive(Clone, PartialEq, Eq, Hash, CacheId)]
#[cacheable(crate = 1)]
struct OrderId(u64);

fn main() {}
