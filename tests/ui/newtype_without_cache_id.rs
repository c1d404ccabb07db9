use cache_aside::{Cacheable, FieldValue};

#[derive(Clone, PartialEq, Eq, Hash, FieldValue)]
struct ProductId(u64);

#[derive(Clone, PartialEq, Eq, Hash)]
struct OrderId(u64);

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: ProductId,
}

#[derive(Cacheable)]
struct OrderLine {
    #[cacheable(id)]
    order: OrderId,
    #[cacheable(id)]
    product: ProductId,
}

fn main() {}
