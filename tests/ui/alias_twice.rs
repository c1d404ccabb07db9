use cache_aside::Cacheable;

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: String,
    #[cacheable(alias = "count", alias = "amount")]
    #[cacheable(alias = "count")]
    stock: u32,
}

fn main() {}
