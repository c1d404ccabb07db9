use cache_aside::Cacheable;

mod chrono {
    pub struct Local;
    pub struct DateTime<Z>(Z);
}
use chrono::{DateTime, Local};

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: u64,
    created_at: DateTime<Local>,
    sold_at: Option<chrono::DateTime<chrono::Local>>,
}

fn main() {}
