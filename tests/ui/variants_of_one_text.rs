use cache_aside::{CacheId, FieldValue};

#[derive(FieldValue)]
enum Status {
    Active,
    #[cacheable(rename = "Active")]
    Live,
    #[cacheable(alias = "Active")]
    Running,
}

#[derive(FieldValue)]
#[cacheable(rename_all = "lowercase")]
enum Kind {
    OnSale,
    Onsale,
    #[cacheable(alias = "gone", alias = "gone")]
    Sold,
    #[cacheable(alias = "gone")]
    Removed,
    #[cacheable(alias = "lost")]
    Lost,
}

#[derive(Clone, PartialEq, Eq, Hash, CacheId)]
enum Region {
    North,
    #[cacheable(rename = "North")]
    Arctic,
}

fn main() {}
