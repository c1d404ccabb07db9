use cache_aside::Cacheable;

#[derive(Cacheable)]
struct Product {
    #[cacheable(id, skip)]
    shop: String,
    #[cacheable(id, default)]
    shelf: u32,
    #[cacheable(json, id)]
    name: String,
    #[cacheable(id)]
    #[cacheable(with = "hex")]
    number: u64,
}

fn main() {}
