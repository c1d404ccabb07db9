use cache_aside::Cacheable;

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: String,
    #[cacheable(alias = "stock")]
    stock: u32,
    #[cacheable(rename = "price", alias = "price_cents", alias = "price")]
    price_cents: i64,
}

fn main() {}
