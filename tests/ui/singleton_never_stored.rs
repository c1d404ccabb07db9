use cache_aside::{Cacheable, Embeddable};

#[derive(Cacheable)]
#[cacheable(singleton)]
struct Settings {
    theme: Option<String>,
    #[cacheable(json)]
    tags: Option<Vec<String>>,
    #[cacheable(skip)]
    seen: u32,
}

#[derive(Embeddable)]
struct Limits {
    most: Option<u32>,
}

#[derive(Cacheable)]
#[cacheable(singleton)]
struct Quota {
    #[cacheable(embed)]
    limits: Limits,
}

#[derive(Cacheable)]
#[cacheable(singleton = true)]
struct Flag {
    on: bool,
}

fn main() {}
