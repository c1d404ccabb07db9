use cache_aside::FieldValue;

#[derive(FieldValue)]
enum Status {
    Active,
    #[cacheable(other)]
    Unknown,
    #[cacheable(other)]
    Odd,
}

fn main() {}
