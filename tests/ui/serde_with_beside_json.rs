use cache_aside::Cacheable;

#[derive(Cacheable, serde::Serialize)]
struct Product {
    #[cacheable(id)]
    id: u64,
    #[cacheable(json)]
    #[serde(serialize_with = "sorted")]
    tags: Vec<String>,
    #[cacheable(json, store)]
    #[serde(serialize_with = "sorted")]
    names: Vec<String>,
}

fn sorted<S: serde::Serializer>(tags: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    let mut tags = tags.to_vec();
    tags.sort();
    serde::Serialize::serialize(&tags, serializer)
}

fn main() {}
