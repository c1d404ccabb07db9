use cache_aside::Cacheable;

#[derive(Cacheable)]
struct Product<'a> {
    #[cacheable(id)]
    id: String,
    name: &'a str,
}

fn main() {}
