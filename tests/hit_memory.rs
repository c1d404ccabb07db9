//! Memory of hits: small while they are in flight; and nothing of them is left, however many keys there were.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use cache_aside::{Backend, BoxError, Cache, Cacheable};

#[allow(dead_code, reason = "the other tests need the rest")]
#[path = "server/harness.rs"]
mod harness;

use harness::{Flavor, Server};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

#[derive(Debug, Cacheable)]
#[cacheable(namespace = "billing", entity = "product")]
struct Product {
    #[cacheable(id)]
    id: u32,
    name: String,
    stock: u32,
}

async fn load(id: u32) -> Result<Option<Product>, BoxError> {
    Ok(Some(Product { id, name: "Sourdough Loaf".to_owned(), stock: 42 }))
}

#[tokio::test]
async fn a_hit_in_flight_takes_less_than_two_kilobytes_and_leaves_nothing() {
    const GETS: u32 = 10_000;
    const OF_EACH: usize = 2 * 1024;
    /// Buffers are kept, as large as they were needed once.
    const KEPT: usize = 256 * 1024;
    /// Less than it takes until a server is asked whether it still is there.
    const PAUSE: Duration = Duration::from_millis(600);
    let server = Server::start(Flavor::Redis70).await;
    let backend = Backend::builder(&server.url()).operation_timeout(Duration::from_secs(30)).connect().await.unwrap();
    let cache = Cache::<Product>::new(backend);
    for id in 0..GETS {
        cache.get(id, load).await.unwrap();
    }
    let all = async || {
        let gets: Vec<_> = (0..GETS).map(|id| tokio::spawn(cache.get(id, load))).collect();
        for get in gets {
            get.await.unwrap().unwrap().unwrap();
        }
    };
    all().await;

    let mut operator = server.client().await;
    let _profiler = dhat::Profiler::builder().testing().build();
    let mut pause = redis::cmd("CLIENT");
    pause.arg("PAUSE").arg(PAUSE.as_millis() as u64).arg("ALL");
    pause.exec_async(&mut operator).await.unwrap();
    let gets: Vec<_> = (0..GETS).map(|id| tokio::spawn(cache.get(id, load))).collect();
    tokio::time::sleep(PAUSE / 3).await;
    let in_flight = dhat::HeapStats::get().curr_bytes / GETS as usize;
    assert!(gets.iter().all(|get| !get.is_finished()), "the server is paused");
    for get in gets {
        get.await.unwrap().unwrap().unwrap();
    }
    let left = dhat::HeapStats::get().curr_bytes;
    println!("{in_flight} bytes for each get in flight, {left} bytes after them");
    assert!(in_flight < OF_EACH, "{in_flight} bytes for each get in flight");
    assert!(left < KEPT, "{left} bytes are left");
    assert_eq!(cache.stats().hits, u64::from(2 * GETS));
}
