use cache_aside::Cacheable;

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: String,
    size: Size,
    sizes: Option<Size>,
    tags: std::collections::BTreeMap<String, String>,
}

struct Size;

fn main() {}
