use cache_aside::Cacheable;

#[derive(Cacheable)]
#[cacheable(namespace = billing, entity = 'p', ttl = 30, not_found_ttl = b"2s", version = "3", crate = 3)]
struct Product {
    #[cacheable(id)]
    id: String,
    #[cacheable(rename("count"))]
    stock: u32,
    #[cacheable(with = grams)]
    weight: f64,
}

fn main() {}
