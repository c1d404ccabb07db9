use cache_aside::{Cache, Cacheable};

#[derive(Cacheable)]
struct Product {
    id: String,
    stock: u32,
}

// Uses of the type add no errors of their own.
async fn restock(products: Cache<Product>) {
    products.update_field("p-001", Product::FIELDS.stock, 41).await.ok();
}

fn main() {}
