use cache_aside::Cacheable;

#[derive(Cacheable)]
struct Product;

fn main() {}
