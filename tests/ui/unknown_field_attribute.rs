use cache_aside::Cacheable;

#[derive(Cacheable)]
struct Misspelled {
    #[cacheable(idd)]
    id: String,
    #[cacheable(jsno)]
    tags: Vec<String>,
    #[cacheable(aliases = "count")]
    stock: u32,
}

#[derive(Cacheable)]
struct Unknown {
    #[cacheable(id)]
    id: String,
    #[cacheable(flatten)]
    name: String,
}

fn main() {}
