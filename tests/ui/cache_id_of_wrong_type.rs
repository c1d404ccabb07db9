use cache_aside::CacheId;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Number(u64);

#[derive(Clone, PartialEq, Eq, Hash, CacheId)]
struct OrderId(Number);

fn main() {}
