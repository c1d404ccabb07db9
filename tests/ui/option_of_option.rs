use cache_aside::{Cacheable, Embeddable, FieldValue};

type Maybe = Option<u32>;

#[derive(FieldValue)]
struct Limit(Option<u32>);

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: u64,
    stock: Option<Option<u32>>,
}

#[derive(Cacheable)]
struct Order {
    #[cacheable(id)]
    id: u64,
    total: Option<Maybe>,
    limit: Option<Limit>,
    boxed: Option<Box<Maybe>>,
}

#[derive(Embeddable)]
struct Part {
    number: u64,
    count: Option<Maybe>,
}

#[derive(Cacheable)]
struct Machine {
    #[cacheable(id)]
    id: u64,
    #[cacheable(embed)]
    part: Part,
    #[cacheable(embed)]
    spare: Option<Part>,
}

#[derive(FieldValue)]
struct Height(Option<Maybe>);

#[derive(FieldValue)]
struct Width(Option<Option<u32>>);

fn main() {}
