use cache_aside::Cacheable;

#[derive(Cacheable)]
#[cacheable(namespace = "Billing")]
struct UpperCase {
    #[cacheable(id)]
    id: String,
}

#[derive(Cacheable)]
#[cacheable(namespace = "")]
struct Empty {
    #[cacheable(id)]
    id: String,
}

fn main() {}
