use cache_aside::{Cacheable, Embeddable};

struct Address {
    street: String,
}

#[derive(Cacheable)]
struct Customer {
    #[cacheable(id)]
    id: u64,
    #[cacheable(embed)]
    home: Address,
    #[cacheable(embed)]
    work: Option<Address>,
}

#[derive(Embeddable)]
struct Person {
    #[cacheable(embed)]
    home: Address,
    #[cacheable(embed)]
    work: Option<Address>,
    name: String,
}

fn main() {}
