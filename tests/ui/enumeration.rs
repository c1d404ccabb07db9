use cache_aside::{Cache, Cacheable};

#[derive(Cacheable)]
enum Product {
    Bread,
    Cake,
}

struct Shop {
    products: Cache<Product>,
}

fn main() {}
