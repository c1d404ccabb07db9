use cache_aside::Cacheable;

#[derive(Cacheable)]
struct Cell {
    #[cacheable(id)]
    a: u8,
    #[cacheable(id)]
    b: u8,
    #[cacheable(id)]
    c: u8,
    #[cacheable(id)]
    d: u8,
    #[cacheable(id)]
    e: u8,
    #[cacheable(id)]
    f: u8,
    #[cacheable(id)]
    g: u8,
    #[cacheable(id)]
    h: u8,
    #[cacheable(id)]
    i: u8,
}

fn main() {}
