use cache_aside::Cacheable;

#[derive(Cacheable)]
#[cacheable(stale_if_error = "5", stale_retry = "0s")]
struct Malformed {
    #[cacheable(id)]
    id: String,
}

#[derive(Cacheable)]
#[cacheable(stale_if_error, stale_retry = 1)]
struct WithoutText {
    #[cacheable(id)]
    id: String,
}

fn main() {}
