use cache_aside::{CacheId, Cacheable, Embeddable, FieldValue};
use ulid::Ulid;
use url::Url;

#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: Ulid,
    homepage: Url,
    manual: Option<Url>,
    parent: Option<Box<Ulid>>,
    created_at: time::OffsetDateTime,
    sold_at: Option<jiff::Timestamp>,
    price: bigdecimal::BigDecimal,
}

#[derive(Embeddable)]
struct Name {
    short: smol_str::SmolStr,
    long: Option<compact_str::CompactString>,
}

#[derive(FieldValue)]
struct Homepage(Url);

#[derive(Clone, PartialEq, Eq, Hash, FieldValue, CacheId)]
struct ProductId(Ulid);

// Stand-ins for the crates.
mod bigdecimal {
    pub struct BigDecimal;
}
mod compact_str {
    pub struct CompactString;
}
mod jiff {
    pub struct Timestamp;
}
mod smol_str {
    pub struct SmolStr;
}
mod time {
    pub struct OffsetDateTime;
}
mod ulid {
    #[derive(Clone, PartialEq, Eq, Hash)]
    pub struct Ulid;
}
mod url {
    pub struct Url;
}

fn main() {}
