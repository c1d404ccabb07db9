use cache_aside::Cacheable;

#[derive(Cacheable)]
#[cacheable(tll = "30s", also_invalidate = [2])]
struct Misspelled {
    #[cacheable(id)]
    id: String,
}

#[derive(Cacheable)]
#[cacheable(expire = "30s", shop::ttl = "30s")]
struct Unknown {
    #[cacheable(id)]
    id: String,
}

fn main() {}
