use cache_aside::{Cacheable, Embeddable, FieldValue};

#[derive(Cacheable)]
#[cacheable(rename_all = "camel")]
struct Product {
    #[cacheable(id)]
    id: u64,
}

#[derive(Embeddable)]
#[cacheable(rename_all)]
struct Address {
    street: String,
}

#[derive(FieldValue)]
#[cacheable(rename_all = "snake-case")]
enum Status {
    Active,
}

fn main() {}
