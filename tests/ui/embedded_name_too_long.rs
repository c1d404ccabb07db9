use cache_aside::{Cacheable, Embeddable};

#[derive(Embeddable)]
struct Address {
    street: String,
}

#[derive(Cacheable)]
struct Customer {
    #[cacheable(id)]
    id: u64,
    // 250 letters.
    #[cacheable(embed(prefix = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"))]
    home: Address,
}

fn main() {}
