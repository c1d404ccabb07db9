use cache_aside::Cacheable;

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: String,
    #[cacheable(json, with = "tags")]
    tags: Vec<String>,
}

fn main() {}
