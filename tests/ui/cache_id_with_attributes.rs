use cache_aside::CacheId;

#[derive(Clone, PartialEq, Eq, Hash, CacheId)]
#[cacheable(namespace = "billing", crat = cache_aside)]
struct OrderId(#[cacheable(rename = "order")] u64);

fn main() {}
