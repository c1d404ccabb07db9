use cache_aside::Cacheable;

#[derive(Cacheable)]
#[cacheable(namespace, entity, ttl, not_found_ttl, version, crate)]
struct Product {
    #[cacheable(id)]
    id: String,
    #[cacheable(rename)]
    stock: u32,
    #[cacheable(with)]
    weight: f64,
}

fn main() {}
