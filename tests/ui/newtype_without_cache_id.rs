use cache_aside::Cacheable;

#[derive(Clone, PartialEq, Eq, Hash)]
struct ProductId(u64);

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: ProductId,
}

#[derive(Cacheable)]
struct OrderLine {
    #[cacheable(id)]
    order: u64,
    #[cacheable(id)]
    product: ProductId,
}

fn main() {}
