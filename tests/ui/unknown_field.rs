use cache_aside::{Cache, Cacheable};

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: String,
    stock: u32,
    #[cacheable(skip)]
    seen: bool,
}

async fn update(products: Cache<Product>) {
    products.update_field("p-001", Product::FIELDS.stok, 41).await.ok();
    products.update_field("p-001", Product::FIELDS.id, "p-002".to_owned()).await.ok();
    products.update_field("p-001", Product::FIELDS.seen, true).await.ok();
}

fn main() {}
