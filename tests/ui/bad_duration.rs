use cache_aside::Cacheable;

#[derive(Cacheable)]
#[cacheable(ttl = "30")]
struct WithoutUnit {
    #[cacheable(id)]
    id: String,
}

#[derive(Cacheable)]
#[cacheable(ttl = "1.5h")]
struct Fraction {
    #[cacheable(id)]
    id: String,
}

#[derive(Cacheable)]
#[cacheable(not_found_ttl = "0s")]
struct Zero {
    #[cacheable(id)]
    id: String,
}

#[derive(Cacheable)]
#[cacheable(ttl = "99999999999999999999d")]
struct TooLong {
    #[cacheable(id)]
    id: String,
}

fn main() {}
