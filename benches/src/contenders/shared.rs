//! The cost of sharing one connection: reads during large fills, and one cache used from several runtimes.

use std::sync::Arc;
use std::time::Duration;

use cache_aside::{Backend, BoxError, Cache, Cacheable};
use tokio::runtime::{Builder, Handle, Runtime};

use super::ours::{filled, never};
use crate::Failure;
use crate::measure::{Contender, Operation};
use crate::records::{Product, id};

/// One call in this many is a fill: so few that p99 is that of the reads.
const FILL_ONE_IN: usize = 500;
const LARGE: usize = 1024 * 1024;

#[derive(Debug, Cacheable)]
#[cacheable(namespace = "bench", ttl = "1h")]
struct Large {
    #[cacheable(id)]
    id: u64,
    text: String,
}

/// Reads alone, during fills on their connection, and during fills on another connection.
pub(super) async fn beside_fills(url: &str) -> Result<Vec<Contender>, Failure> {
    let connect = || Backend::builder(url).operation_timeout(Duration::from_secs(5)).connect();
    let backend = connect().await?;
    let reads = filled::<Product>(backend.clone()).await?;
    let fills = |backend| Cache::<Large>::builder(backend).max_entry_bytes(2 * LARGE).build();
    let beside = |fills| Beside { reads: reads.clone(), fills };
    Ok(vec![
        Contender::new("reads alone", beside(None)),
        Contender::new("reads beside fills of 1 MiB", beside(Some(fills(backend)?))),
        Contender::new("reads beside fills over another connection", beside(Some(fills(connect().await?)?))),
    ])
}

#[derive(Clone)]
struct Beside {
    reads: Cache<Product>,
    fills: Option<Cache<Large>>,
}

impl Operation for Beside {
    async fn call(&mut self, at: usize) {
        if let Some(fills) = &self.fills
            && at.is_multiple_of(FILL_ONE_IN)
        {
            let load = async |id| Ok::<_, BoxError>(Some(Large { id, text: "x".repeat(LARGE) }));
            std::hint::black_box(fills.refresh(1, load).await.expect("a reply"));
        } else {
            std::hint::black_box(self.reads.get(id(at), never).await.expect("a hit"));
        }
    }
}

/// Callers of one cache on ever more runtimes with one thread each.
pub(super) async fn runtimes(url: &str) -> Result<Vec<Contender>, Failure> {
    let mut contenders = Vec::new();
    for (name, count) in [("1 runtime", 1), ("2 runtimes", 2), ("3 runtimes", 3), ("4 runtimes", 4)] {
        let runtime = |_| Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtimes = Arc::new(Runtimes((0..count).map(runtime).collect::<Result<_, _>>()?));
        // The first runtime drives the connection.
        let url = url.to_owned();
        let cache = runtimes.0[0].spawn(async move { filled::<Product>(Backend::connect(&url).await?).await });
        contenders.push(Contender::new(name, OnRuntimes { cache: cache.await??, runtimes }));
    }
    Ok(contenders)
}

#[derive(Clone)]
struct OnRuntimes {
    cache: Cache<Product>,
    runtimes: Arc<Runtimes>,
}

struct Runtimes(Vec<Runtime>);

impl Drop for Runtimes {
    fn drop(&mut self) {
        // A contender that isn't chosen is dropped on another runtime, which must not block.
        self.0.drain(..).for_each(Runtime::shutdown_background);
    }
}

impl Operation for OnRuntimes {
    fn runtime(&self, caller: usize) -> Handle {
        self.runtimes.0[caller % self.runtimes.0.len()].handle().clone()
    }

    async fn call(&mut self, at: usize) {
        std::hint::black_box(self.cache.get(id(at), never).await.expect("a hit"));
    }
}
