use cache_aside::{Cacheable, FieldValue};

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: String,
    #[cacheable(default)]
    number: Number,
    #[cacheable(skip)]
    seen: Number,
}

#[derive(FieldValue)]
struct Number(u64);

fn main() {}
