use cache_aside::Cacheable;

#[derive(Cacheable)]
struct Parcel {
    #[cacheable(id)]
    id: String,
    #[cacheable(with = "grams")]
    weight: f64,
    #[cacheable(with = "centimetres")]
    height: f64,
}

mod grams {
    pub fn encode(kilograms: &f64) -> String {
        (kilograms * 1000.0).to_string()
    }
}

fn main() {}
