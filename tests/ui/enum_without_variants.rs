use cache_aside::{CacheId, FieldValue};

#[derive(FieldValue)]
enum Status {}

#[derive(Clone, PartialEq, Eq, Hash, CacheId)]
enum Region {}

fn main() {}
