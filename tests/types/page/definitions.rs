use cache_aside::{CacheId, Embeddable, FieldValue};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, FieldValue, CacheId)]
#[cacheable(rename_all = "snake_case")]
enum Status {
    Draft,
    OnSale,
    #[cacheable(rename = "gone", alias = "deleted")]
    Discontinued,
    #[cacheable(other)]
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, FieldValue, CacheId)]
struct Sku(String);

#[derive(Debug, Clone, PartialEq, Embeddable)]
struct Address {
    street: String,
    city: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Embeddable)]
#[cacheable(rename_all = "camelCase")]
struct Audit {
    created_by: u64,
}

/// Kilograms in the program, grams in Redis.
mod grams {
    use cache_aside::BoxError;

    pub(super) fn encode(kilograms: &f64) -> String {
        format!("{:.0}", kilograms * 1000.0)
    }

    pub(super) fn decode(text: &[u8]) -> Result<f64, BoxError> {
        let grams: u32 = std::str::from_utf8(text)?.parse()?;
        Ok(f64::from(grams) / 1000.0)
    }
}
