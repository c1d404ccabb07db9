use cache_aside::{CacheId, Cacheable, FieldValue};

#[derive(Clone, PartialEq, Eq, Hash, CacheId)]
struct Named {
    number: u64,
    name: String,
}

#[derive(Clone, PartialEq, Eq, Hash, CacheId)]
struct Pair(u64, u64);

#[derive(Clone, PartialEq, Eq, Hash, CacheId)]
struct Unit;

// A use of a type adds no error of its own.
#[derive(Clone, PartialEq, Eq, Hash, FieldValue, CacheId)]
struct Tenant(String, u64);

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    tenant: Tenant,
    #[cacheable(id)]
    id: u64,
}

fn main() {}
