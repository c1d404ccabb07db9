use cache_aside::{Cacheable, Embeddable};

#[derive(Embeddable)]
struct Address {
    street: String,
}

#[derive(Cacheable)]
struct Customer {
    #[cacheable(id)]
    id: u64,
    #[cacheable(embed(prefx = "a."))]
    one: Address,
    #[cacheable(embed(prefix = "b.", prefix = "c."))]
    two: Address,
    #[cacheable(embed(prefix))]
    three: Address,
    #[cacheable(embed(prefix = 4))]
    four: Address,
    #[cacheable(embed = "e.")]
    five: Address,
    #[cacheable(embed(prefix = "~"))]
    six: Address,
    #[cacheable(embed(json, rename = "g", "h."))]
    seven: Address,
    #[cacheable(embed(json, rename = "g"))]
    eight: Address,
    #[cacheable(embed())]
    nine: Address,
}

fn main() {}
