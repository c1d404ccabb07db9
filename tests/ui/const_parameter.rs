use cache_aside::Cacheable;

#[derive(Cacheable)]
struct Product<const N: usize> {
    #[cacheable(id)]
    id: String,
    digest: [u8; N],
}

fn main() {}
