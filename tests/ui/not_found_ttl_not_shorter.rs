use cache_aside::Cacheable;

#[derive(Cacheable)]
#[cacheable(ttl = "30s", not_found_ttl = "30000ms")]
struct Product {
    #[cacheable(id)]
    id: String,
}

fn main() {}
