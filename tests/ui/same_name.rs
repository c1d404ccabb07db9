use cache_aside::Cacheable;

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: String,
    #[cacheable(rename = "price")]
    price_cents: i64,
    price: f64,
    #[cacheable(rename = "id")]
    number: u64,
    #[cacheable(skip)]
    stock: u32,
    #[cacheable(rename = "stock")]
    amount: u32,
}

fn main() {}
