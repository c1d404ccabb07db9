use cache_aside::{Cache, Cacheable, Embeddable};

#[derive(Cacheable, serde::Serialize)]
#[cacheable(namespace = "Billing", tll = "30s", version = "3")]
#[cacheable(ttl = "1s", not_found_ttl = "2s")]
struct Product {
    #[cacheable(id, skip)]
    id: String,
    #[cacheable(rename = "~name")]
    name: String,
    #[cacheable(rename = "price")]
    price_cents: i64,
    price: f64,
    #[cacheable(jsno)]
    tags: Vec<String>,
    #[cacheable(entity = "stock")]
    stock: u32,
    #[cacheable(embed(prefix = "~"), default)]
    origin: Origin,
    weight: Option<Option<u32>>,
    #[serde(skip)]
    supplier: String,
}

#[derive(Embeddable, serde::Serialize)]
struct Origin {
    #[cacheable(id)]
    country: String,
    #[cacheable(json, with = "farms")]
    farm: String,
}

// Uses of the type add no errors of their own.
async fn restock(products: Cache<Product>) {
    let product = products.peek("p-001").await.unwrap().unwrap();
    products.update_field(&product.id, Product::FIELDS.stock, product.stock - 1).await.unwrap();
    products.update_fields("p-001", [Product::FIELDS.tags.set(Vec::new())]).await.unwrap();
}

fn main() {}
