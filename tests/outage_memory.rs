//! Memory while the cache is down and all records are read at once: it is bounded, and freed.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cache_aside::{Backend, BoxError, Cache, Cacheable};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const KEYS: u32 = 10_000;
const BOUND: usize = 64;

#[derive(Debug, Cacheable)]
#[cacheable(namespace = "billing", entity = "product")]
struct Product {
    #[cacheable(id)]
    id: u32,
    stock: u32,
}

/// Reads all keys at once; returns the highest number of concurrent loads.
async fn ask_for_all(cache: &Cache<Product>) -> usize {
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let gets: Vec<_> = (0..KEYS)
        .map(|id| {
            let (running, most) = (running.clone(), most.clone());
            tokio::spawn(cache.get(id, move |id| async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(1)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, BoxError>(Some(Product { id, stock: id }))
            }))
        })
        .collect();
    for (id, get) in (0..KEYS).zip(gets) {
        assert_eq!(get.await.unwrap().unwrap().unwrap().stock, id);
    }
    most.load(Ordering::SeqCst)
}

#[tokio::test]
async fn ten_thousand_keys_without_a_server_end_within_the_bound_and_leave_nothing() {
    /// Buffers that grow with the highest concurrency, such as a map's, are kept.
    const KEPT: usize = 64 * 1024;
    /// A get that waits for its turn: its own future, its load's, and its place in two queues.
    const OF_EACH_GET: usize = 16 * 1024;
    // Nothing listens there, as if the server had been killed, and no other test gets the port.
    let nowhere = tokio::net::TcpSocket::new_v4().unwrap();
    nowhere.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let backend = Backend::builder(&format!("redis://{}", nowhere.local_addr().unwrap())).connect_lazy().unwrap();
    let cache: Cache<Product> =
        Cache::builder(backend).max_bypass_loads(BOUND).wait_timeout(Duration::from_secs(600)).build().unwrap();
    ask_for_all(&cache).await;

    let _profiler = dhat::Profiler::builder().testing().build();
    let mut after = Vec::new();
    for _ in 0..3 {
        assert_eq!(ask_for_all(&cache).await, BOUND);
        after.push(dhat::HeapStats::get().curr_bytes);
    }
    let most = dhat::HeapStats::get().max_bytes;
    println!("{} bytes for each get at the most; after each round {after:?}", most / KEYS as usize);
    assert!(after.iter().all(|bytes| *bytes < KEPT), "{after:?} bytes are left after each round");
    assert!(most < KEYS as usize * OF_EACH_GET, "{} bytes for each get", most / KEYS as usize);
}
