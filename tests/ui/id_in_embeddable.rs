use cache_aside::{Cacheable, Embeddable};

#[derive(Embeddable)]
struct Address {
    #[cacheable(id)]
    id: u64,
    street: String,
}

// Uses of the type add no errors of their own.
#[derive(Cacheable)]
struct Customer {
    #[cacheable(id)]
    id: u64,
    #[cacheable(embed)]
    home: Address,
    #[cacheable(embed)]
    work: Option<Address>,
}

fn street(customer: &Customer) -> &str {
    let _ = Customer::FIELDS.home.street.name();
    &customer.home.street
}

fn main() {}
