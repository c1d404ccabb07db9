use cache_aside::Cacheable;

#[derive(Cacheable)]
union Product {
    id: u64,
    number: i64,
}

fn main() {}
