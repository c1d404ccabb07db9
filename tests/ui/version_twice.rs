use cache_aside::Cacheable;

#[derive(Cacheable)]
#[cacheable(version = 3, also_invalidates = [1, none, 2, 1, none])]
struct Product {
    #[cacheable(id)]
    id: String,
}

fn main() {}
