use cache_aside::Cacheable;

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: String,
    properties: serde_json::Value,
}

// A stand-in for the crate.
mod serde_json {
    pub enum Value {
        Null,
    }
}

fn main() {}
