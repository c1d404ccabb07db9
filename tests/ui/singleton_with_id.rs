use cache_aside::Cacheable;

#[derive(Cacheable)]
#[cacheable(singleton)]
struct Settings {
    #[cacheable(id)]
    id: u64,
    theme: String,
}

fn main() {}
