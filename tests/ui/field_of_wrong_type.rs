use cache_aside::{Cache, Cacheable};

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: String,
    stock: u32,
}

#[derive(Cacheable)]
struct Order {
    #[cacheable(id)]
    id: String,
    total: i64,
}

async fn update(products: Cache<Product>) {
    products.update_field("p-001", Product::FIELDS.stock, "41").await.ok();
    products.update_field("p-001", Order::FIELDS.total, 41).await.ok();
    products.update_fields("p-001", [Product::FIELDS.stock.set(-1.0)]).await.ok();
}

fn main() {}
