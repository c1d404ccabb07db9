use cache_aside::{CacheId, Cacheable, FieldValue};

#[derive(FieldValue)]
enum Price {
    Free,
    Cents(i64),
    Discounted { cents: i64, percent: u8 },
}

#[derive(Clone, PartialEq, Eq, Hash, CacheId)]
enum Owner {
    Nobody,
    User(u64),
}

// Uses of the types add no errors of their own.
#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: u64,
    price: Price,
}

fn main() {}
