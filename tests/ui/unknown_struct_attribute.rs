use cache_aside::Cacheable;

#[derive(Cacheable)]
#[cacheable(tll = "30s")]
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
