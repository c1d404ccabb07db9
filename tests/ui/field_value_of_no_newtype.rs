use cache_aside::{Cacheable, FieldValue};

#[derive(FieldValue)]
struct Named {
    number: u64,
    name: String,
}

#[derive(FieldValue)]
struct Pair(u64, u64);

#[derive(FieldValue)]
struct Unit;

#[derive(Clone, Copy, FieldValue)]
union Number {
    small: u8,
    large: u64,
}

// Uses of the types add no errors of their own.
#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: u64,
    named: Named,
    pair: Option<Pair>,
    unit: Box<Unit>,
}

fn main() {}
