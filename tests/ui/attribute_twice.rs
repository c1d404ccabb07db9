use cache_aside::Cacheable;

#[derive(Cacheable)]
#[cacheable(ttl = "30s", ttl = "60s")]
struct Product {
    #[cacheable(id)]
    id: String,
    #[cacheable(rename = "count")]
    #[cacheable(rename = "amount")]
    stock: u32,
}

fn main() {}
