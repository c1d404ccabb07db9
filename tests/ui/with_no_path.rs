use cache_aside::Cacheable;

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: String,
    #[cacheable(with = "")]
    weight: f64,
    #[cacheable(with = "grams::<f64>")]
    volume: f64,
}

fn main() {}
