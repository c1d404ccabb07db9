use cache_aside::{Cache, Cacheable};

#[derive(Cacheable)]
struct Product<Name> {
    #[cacheable(id)]
    id: String,
    name: Name,
}

struct Shop {
    products: Cache<Product<String>>,
}

fn main() {}
