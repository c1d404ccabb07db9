use cache_aside::{Cacheable, Embeddable};

#[derive(Embeddable)]
struct Note {
    text: Option<String>,
    author: Option<u64>,
}

#[derive(Embeddable)]
struct Wrapper {
    #[cacheable(embed)]
    note: Note,
    #[cacheable(skip)]
    seen: u32,
}

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: u64,
    #[cacheable(embed)]
    note: Option<Note>,
    #[cacheable(embed)]
    wrapper: Option<Wrapper>,
}

#[derive(Embeddable)]
struct Part {
    number: u64,
    #[cacheable(embed)]
    note: Option<Note>,
}

#[derive(Cacheable)]
struct Machine {
    #[cacheable(id)]
    id: u64,
    #[cacheable(embed)]
    part: Part,
}

fn main() {}
