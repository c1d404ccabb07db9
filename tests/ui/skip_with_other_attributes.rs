use cache_aside::Cacheable;

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: String,
    #[cacheable(skip, rename = "count", default)]
    stock: u32,
    #[cacheable(json, skip)]
    tags: Vec<String>,
    #[cacheable(with = "grams", skip)]
    weight: f64,
    #[cacheable(skip, alias = "colour")]
    color: String,
}

fn main() {}
