use cache_aside::Cacheable;

#[derive(Cacheable)]
struct Product {
    #[cacheable(id = "p")]
    id: String,
    #[cacheable(default = 3)]
    stock: u32,
    #[cacheable(skip(true))]
    seen: bool,
    #[cacheable(json = "tags")]
    tags: Vec<String>,
}

fn main() {}
