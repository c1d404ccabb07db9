use cache_aside::Cacheable;

#[derive(Cacheable)]
#[cacheable(version = 2, also_invalidates = 1)]
struct NoList {
    #[cacheable(id)]
    id: String,
}

#[derive(Cacheable)]
#[cacheable(version = 2, also_invalidates)]
struct NoValue {
    #[cacheable(id)]
    id: String,
}

#[derive(Cacheable)]
#[cacheable(version = 2, also_invalidates = [])]
struct Empty {
    #[cacheable(id)]
    id: String,
}

#[derive(Cacheable)]
#[cacheable(version = 2, also_invalidates = ["1", -1, 4294967296, unversioned, 3])]
struct NoVersions {
    #[cacheable(id)]
    id: String,
}

fn main() {}
