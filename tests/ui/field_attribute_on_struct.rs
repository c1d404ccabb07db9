use cache_aside::Cacheable;

#[derive(Cacheable)]
#[cacheable(id)]
struct Product {
    id: String,
}

fn main() {}
