use cache_aside::{Cacheable, Embeddable};

#[derive(Cacheable, serde::Serialize)]
struct User {
    #[cacheable(id)]
    id: u64,
    #[serde(skip)]
    password_hash: String,
    #[serde(rename = "mail", skip_serializing)]
    email: String,
    #[serde(skip)]
    #[cacheable(skip)]
    token: String,
    #[serde(skip)]
    #[cacheable(store)]
    score: u32,
}

#[derive(Embeddable, serde::Deserialize)]
struct Account {
    balance: i64,
    #[serde(skip_deserializing)]
    limit: i64,
}

fn main() {}
