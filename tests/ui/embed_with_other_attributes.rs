use cache_aside::{Cacheable, Embeddable};

#[derive(Default, Embeddable)]
struct Address {
    street: String,
}

#[derive(Cacheable)]
struct Customer {
    #[cacheable(id, embed)]
    id: Address,
    #[cacheable(embed, rename = "private")]
    home: Address,
    #[cacheable(embed, alias = "office", alias = "desk")]
    work: Address,
    #[cacheable(embed, default)]
    billing: Option<Address>,
    #[cacheable(embed, json)]
    shipping: Address,
    #[cacheable(embed, with = "addresses")]
    mail: Address,
    #[cacheable(embed, skip)]
    parents: Address,
    #[cacheable(embed, embed)]
    second: Address,
}

fn main() {}
