use cache_aside::CacheId;

#[derive(Clone, PartialEq, Eq, Hash, CacheId)]
struct Id<T>(T);

fn main() {}
