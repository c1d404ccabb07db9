use cache_aside::Cacheable;

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: String,
    #[cacheable(rename = "~meta")]
    meta: String,
    #[cacheable(rename = "")]
    name: String,
}

fn main() {}
