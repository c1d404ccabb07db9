use cache_aside::Cacheable;

#[derive(Cacheable)]
#[cacheable(version = 2, also_invalidates = [1, 2])]
struct Versioned {
    #[cacheable(id)]
    id: String,
}

#[derive(Cacheable)]
#[cacheable(also_invalidates = [none, 1])]
struct Unversioned {
    #[cacheable(id)]
    id: String,
}

fn main() {}
