use cache_aside::Cache;

struct Product {
    id: String,
}

struct Shop {
    products: Cache<Product>,
}

fn main() {}
