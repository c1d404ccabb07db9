use cache_aside::{CacheId, Cacheable};

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: String,
    #[cacheable(default)]
    number: Number,
    #[cacheable(skip)]
    seen: Number,
}

#[derive(Clone, PartialEq, Eq, Hash, CacheId)]
struct Number(u64);

fn main() {}
