use cache_aside::{CacheId, Cacheable};

#[derive(Clone, PartialEq, Eq, Hash, CacheId)]
struct Named {
    number: u64,
}

#[derive(Clone, PartialEq, Eq, Hash, CacheId)]
struct Pair(u64, u64);

#[derive(Clone, PartialEq, Eq, Hash, CacheId)]
struct Unit;

#[derive(Clone, PartialEq, Eq, Hash, CacheId)]
enum Kind {
    Bread,
    Cake,
}

// Uses of the types add no errors of their own.
#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    named: Named,
    #[cacheable(id)]
    pair: Pair,
    unit: Unit,
    kind: Kind,
}

fn main() {}
