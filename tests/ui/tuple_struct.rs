use cache_aside::Cacheable;

#[derive(Cacheable)]
struct Product(String, u32);

fn main() {}
