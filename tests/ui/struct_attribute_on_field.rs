use cache_aside::Cacheable;

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: String,
    #[cacheable(ttl = "30s")]
    stock: u32,
}

fn main() {}
