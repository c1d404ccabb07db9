use cache_aside::Cacheable;

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: String,
    #[cacheable(json)]
    size: Size,
}

#[derive(serde::Serialize)]
struct Size;

fn main() {}
