use cache_aside::Cacheable;

#[derive(Cacheable)]
#[cacheable]
struct Bare {
    #[cacheable(id)]
    id: String,
}

#[derive(Cacheable)]
#[cacheable = "billing"]
struct Equals {
    #[cacheable(id)]
    id: String,
}

#[derive(Cacheable)]
#[cacheable(ttl: "30s")]
struct Colon {
    #[cacheable(id)]
    id: String,
}

#[derive(Cacheable)]
struct Quoted {
    #[cacheable("id")]
    id: String,
}

fn main() {}
