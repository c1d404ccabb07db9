use cache_aside::Cacheable;

#[derive(Cacheable)]
struct Parcel {
    #[cacheable(id)]
    id: String,
    #[cacheable(with = "grams")]
    weight: f32,
}

mod grams {
    pub fn encode(kilograms: &f64) -> String {
        (kilograms * 1000.0).to_string()
    }

    pub fn decode(_text: &[u8]) -> Result<f32, std::fmt::Error> {
        Err(std::fmt::Error)
    }
}

fn main() {}
