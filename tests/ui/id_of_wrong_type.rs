use cache_aside::{Cache, Cacheable};

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: String,
}

#[derive(Cacheable)]
struct OrderLine {
    #[cacheable(id)]
    order: u64,
    #[cacheable(id)]
    product: String,
}

fn read(products: Cache<Product>, lines: Cache<OrderLine>) {
    drop(products.peek(7));
    drop(lines.peek(("p-001", 7)));
}

fn main() {}
