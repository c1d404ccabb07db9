use cache_aside::{Cacheable, Embeddable};

#[derive(Embeddable)]
enum Payment {
    Cash,
    Card { number: String },
}

#[derive(Embeddable)]
struct Point(f64, f64);

#[derive(Embeddable)]
struct Unit;

#[derive(Embeddable)]
struct Empty {}

#[derive(Clone, Copy, Embeddable)]
union Number {
    small: u8,
    large: u64,
}

#[derive(Embeddable)]
struct Page<T> {
    items: T,
}

#[derive(Embeddable)]
struct Name<'a> {
    text: &'a str,
}

// Uses of the types add no errors of their own.
#[derive(Cacheable)]
struct Product {
    #[cacheable(id)]
    id: u64,
    #[cacheable(embed)]
    payment: Payment,
    #[cacheable(embed)]
    point: Option<Point>,
}

fn main() {}
