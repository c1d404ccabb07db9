use cache_aside::FieldValue;

#[derive(FieldValue)]
enum Status {
    #[cacheable(rename = "")]
    Active,
    #[cacheable(alias = "")]
    Sold,
    #[cacheable(rename = 7)]
    Draft,
    #[cacheable(other = "x")]
    Unknown,
}

fn main() {}
