use cache_aside::Cacheable;

#[derive(Cacheable)]
#[cacheable(refresh_ahead = "2.0")]
struct Text {
    #[cacheable(id)]
    id: String,
}

#[derive(Cacheable)]
#[cacheable(refresh_ahead = 0)]
struct Zero {
    #[cacheable(id)]
    id: String,
}

#[derive(Cacheable)]
#[cacheable(refresh_ahead = -1.0)]
struct Negative {
    #[cacheable(id)]
    id: String,
}

#[derive(Cacheable)]
#[cacheable(refresh_ahead = 1e999)]
struct Infinite {
    #[cacheable(id)]
    id: String,
}

#[derive(Cacheable)]
#[cacheable(refresh_ahead(2.0))]
struct List {
    #[cacheable(id)]
    id: String,
}

fn main() {}
