use std::pin::Pin;

use cache_aside::{Backend, BoxError};

// modules

type Run = fn(Backend, String, String) -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

static RUNS: &[Run] = &[
    // runs
];

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let backend = Backend::connect("redis://127.0.0.1:6379").await?;
    let arguments: Vec<String> = std::env::args().collect();
    RUNS[arguments[1].parse::<usize>()?](backend, arguments[2].clone(), arguments[3].clone()).await
}
