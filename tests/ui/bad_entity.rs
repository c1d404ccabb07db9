use cache_aside::Cacheable;

#[derive(Cacheable)]
#[cacheable(entity = "order:line")]
struct Colon {
    #[cacheable(id)]
    id: String,
}

#[derive(Cacheable)]
struct Größe {
    #[cacheable(id)]
    id: String,
}

fn main() {}
