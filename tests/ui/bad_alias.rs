use cache_aside::Cacheable;

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: String,
    #[cacheable(alias = "~meta")]
    meta: String,
    #[cacheable(alias = "")]
    name: String,
    #[cacheable(alias)]
    price: i64,
    #[cacheable(alias = ["count", "amount"])]
    stock: u32,
}

fn main() {}
