use cache_aside::{CacheId, Cacheable, Embeddable, FieldValue};

#[derive(FieldValue)]
#[cacheable(other, ttl = "30s", json, colour = "red")]
enum Status {
    #[cacheable(rename_all = "lowercase", json)]
    Active,
    #[cacheable(skip, aliases = "gone")]
    Sold,
}

#[derive(Clone, PartialEq, Eq, Hash, CacheId)]
#[cacheable(rename_all = "lowercase", rename = "order")]
struct OrderId(u64);

#[derive(FieldValue)]
#[cacheable(other)]
struct Cents(i64);

#[derive(Embeddable)]
#[cacheable(ttl = "30s", singleton, embed, other)]
struct Address {
    #[cacheable(rename_all = "lowercase", other)]
    street: String,
}

#[derive(Cacheable)]
#[cacheable(other, embed)]
struct Product {
    #[cacheable(id)]
    id: u64,
    #[cacheable(other, singleton)]
    stock: u32,
}

fn main() {}
