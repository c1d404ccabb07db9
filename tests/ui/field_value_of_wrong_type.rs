use cache_aside::FieldValue;

struct Size;

#[derive(FieldValue)]
struct Largest(Size);

#[derive(FieldValue)]
struct Smallest(Option<Size>);

#[derive(FieldValue)]
struct Sizes(Vec<Size>);

fn main() {}
