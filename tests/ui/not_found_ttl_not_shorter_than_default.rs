use cache_aside::Cacheable;

#[derive(Cacheable)]
#[cacheable(not_found_ttl = "5m")]
struct Product {
    #[cacheable(id)]
    id: String,
}

fn main() {}
