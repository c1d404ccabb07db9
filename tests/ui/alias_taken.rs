use cache_aside::Cacheable;

#[derive(Cacheable)]
struct Product {
    #[cacheable(id, alias = "amount")]
    id: String,
    #[cacheable(rename = "price", alias = "cost")]
    price_cents: i64,
    #[cacheable(alias = "cost")]
    margin: i64,
    #[cacheable(alias = "price", alias = "id")]
    stock: u32,
    #[cacheable(skip)]
    count: u32,
    #[cacheable(rename = "amount", alias = "count")]
    ordered: u32,
}

fn main() {}
