use cache_aside::Cacheable;

#[derive(Cacheable)]
#[cacheable(version = -1)]
struct Negative {
    #[cacheable(id)]
    id: String,
}

#[derive(Cacheable)]
#[cacheable(version = 4294967296)]
struct TooLarge {
    #[cacheable(id)]
    id: String,
}

fn main() {}
