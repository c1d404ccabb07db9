//! Memory of hits: little while they are in flight, and none afterwards, however many keys there were.
#![allow(clippy::unwrap_used, missing_docs)]

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use cache_aside::{Backend, BoxError, Cache, Cacheable, Error};
use tokio::task::JoinHandle;

use testkit::server::{Flavor, Server};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

#[derive(Debug, Cacheable)]
#[cacheable(namespace = "billing", entity = "product", ttl = "1d")]
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
    const KEYS: u32 = 10_000;
    const IN_FLIGHT: u32 = 2_000;
    const OF_EACH: usize = 2 * 1024;
    /// A buffer of replies and a thread's timers stay for any number of keys, and may not exist yet at the first
    /// measurement. The text of the keys alone would be twice as much as both.
    const KEPT: usize = 2 * 64 * 1024;
    const LEFT: usize = KEPT + 4_000;
    /// Long enough to send all, and shorter than the time until the server is given up.
    const A_WHILE: Duration = Duration::from_millis(200);
    /// So that a busy machine stores all that it loads.
    const LONG: Duration = Duration::from_secs(600);
    let server = Server::start(Flavor::Redis70).await;
    let backend = Backend::builder(&server.url()).operation_timeout(LONG).connect().await.unwrap();
    let cache =
        Cache::<Product>::builder(backend).lock_ttl(LONG).load_timeout(LONG).wait_timeout(LONG).build().unwrap();
    let begin = |ids: Range<u32>| ids.map(|id| tokio::spawn(cache.get(id, load))).collect::<Vec<_>>();
    let end = async |gets: Vec<JoinHandle<Result<Option<Arc<Product>>, Error>>>| {
        for get in gets {
            get.await.unwrap().unwrap().unwrap();
        }
    };
    for misses in [0..KEYS, KEYS..2 * KEYS] {
        end(begin(misses)).await;
    }
    cache.reset_stats();

    let _profiler = dhat::Profiler::builder().testing().build();
    server.freeze();
    let gets = begin(0..IN_FLIGHT);
    tokio::time::sleep(A_WHILE).await;
    let in_flight = dhat::HeapStats::get().curr_bytes / IN_FLIGHT as usize;
    assert!(gets.iter().all(|get| !get.is_finished()), "the server is frozen");
    server.thaw();
    end(gets).await;

    // Buffers stay as large as they have once been.
    end(begin(0..KEYS)).await;
    let before = dhat::HeapStats::get().curr_bytes;
    end(begin(KEYS..2 * KEYS)).await;
    let left = dhat::HeapStats::get().curr_bytes.saturating_sub(before);
    println!("{in_flight} bytes for each get in flight, {left} bytes after them");
    assert!(in_flight < OF_EACH, "{in_flight} bytes for each get in flight");
    assert!(left < LEFT, "{left} bytes are left");
    assert_eq!(cache.stats().hits, u64::from(2 * KEYS + IN_FLIGHT));
}
