use cache_aside::CacheId;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Number(u64);

#[derive(Clone, PartialEq, Eq, Hash, CacheId)]
struct OfStruct(Number);

#[derive(Clone, PartialEq, Eq, Hash, CacheId)]
struct OfOption(Option<u64>);

fn main() {}
