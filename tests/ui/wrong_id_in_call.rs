use cache_aside::{BoxError, Cache, Cacheable};

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: String,
    stock: u32,
}

async fn find(id: String) -> Result<Option<Product>, BoxError> {
    Ok(Some(Product { id, stock: 0 }))
}

async fn find_many(_: Vec<String>) -> Result<Vec<Product>, BoxError> {
    Ok(Vec::new())
}

async fn get(products: Cache<Product>) {
    drop(products.get(1.5, find).await);
}

async fn get_many(products: Cache<Product>) {
    drop(products.get_many([1.5], find_many).await);
}

async fn update_field(products: Cache<Product>) {
    drop(products.update_field(1.5, Product::FIELDS.stock, 41).await);
}

fn main() {}
