use cache_aside::{Cacheable, Embeddable};

#[derive(Embeddable)]
struct Audit {
    created_by: u64,
    #[cacheable(alias = "changed_by")]
    updated_by: Option<u64>,
}

#[derive(Cacheable)]
struct Customer {
    #[cacheable(id)]
    id: u64,
    created_by: String,
    #[cacheable(embed(prefix = ""))]
    audit: Audit,
}

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: u64,
    #[cacheable(alias = "audit.changed_by")]
    changes: u64,
    #[cacheable(embed)]
    audit: Audit,
}

#[derive(Cacheable)]
struct Order {
    #[cacheable(id)]
    id: u64,
    #[cacheable(embed(prefix = "by."))]
    order: Audit,
    #[cacheable(embed(prefix = "by."))]
    payment: Option<Audit>,
}

fn main() {}
