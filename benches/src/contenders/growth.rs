//! Whether an operation costs more with more entries, bytes or types.

use std::sync::Arc;
use std::time::Duration;

use cache_aside::{Backend, BoxError, Cache, Cacheable};
use futures_util::FutureExt;

use super::ours::never;
use super::{Table, connect};
use crate::Failure;
use crate::measure::{Contender, Operation};

const AMONG: [(&str, u64); 4] =
    [("1 entry", 1), ("10 entries", 10), ("100,000 entries", 100_000), ("1,000,000 entries", 1_000_000)];

pub(crate) const AMONG_ENTRIES: &str = "Hits among entries";

/// Hits with ever more entries; all are compared with the smallest number. Call [`write_entries`] first.
pub(crate) const TABLES: [Table; 3] = [
    Table { title: AMONG_ENTRIES, contenders: |url| among_entries(url).boxed() },
    Table { title: "Hits of values", contenders: |url| of_sizes(url).boxed() },
    Table { title: "Hits of types", contenders: |url| of_types(url).boxed() },
];

async fn among_entries(url: &str) -> Result<Vec<Contender>, Failure> {
    let backend = Backend::connect(url).await?;
    let contender = |(name, entries)| {
        let cache = Cache::builder(backend.clone()).namespace(namespace(entries)).build()?;
        Ok(Contender::new(name, AmongEntries { cache, entries }))
    };
    AMONG.into_iter().map(contender).collect()
}

async fn of_sizes(url: &str) -> Result<Vec<Contender>, Failure> {
    const SIZES: [(&str, usize); 5] =
        [("100 B", 100), ("1 KB", 1_000), ("10 KB", 10_000), ("100 KB", 100_000), ("1 MB", 1_000_000)];
    // Many large values take time.
    let backend = Backend::builder(url).operation_timeout(Duration::from_secs(30)).connect().await?;
    let mut contenders = Vec::new();
    for (name, bytes) in SIZES {
        let cache = Cache::builder(backend.clone()).namespace(format!("bench-{bytes}")).max_entry_bytes(2_000_000);
        let cache = cache.build()?;
        fill(&cache, bytes).await?;
        contenders.push(Contender::new(name, OfSize(cache)));
    }
    Ok(contenders)
}

async fn of_types(url: &str) -> Result<Vec<Contender>, Failure> {
    let backend = Backend::connect(url).await?;
    let mut contenders = Vec::new();
    for (name, types) in [("1 type", 1), ("10 types", 10), ("100 types", 100)] {
        let caches = (0..types).map(|of| Cache::builder(backend.clone()).namespace(format!("bench-t{of}")).build());
        let caches: Arc<[_]> = caches.collect::<Result<_, _>>()?;
        for cache in caches.iter() {
            fill(cache, BYTES).await?;
        }
        contenders.push(Contender::new(name, OfTypes(caches)));
    }
    Ok(contenders)
}

#[derive(Debug, Cacheable)]
#[cacheable(namespace = "bench", ttl = "1h")]
struct Thing {
    #[cacheable(id)]
    id: u64,
    text: String,
}

/// The length of the text in tables that don't measure it.
const BYTES: usize = 100;

fn namespace(entries: u64) -> String {
    format!("bench-{entries}-entries")
}

/// Writes the other entries with the bare driver: a load for each would take too long.
pub(crate) async fn write_entries(url: &str) -> Result<(), Failure> {
    const AT_A_TIME: u64 = 10_000;
    const HOUR: u64 = 3_600;
    let mut connection = connect(url).await?;
    for (_name, entries) in AMONG {
        let namespace = namespace(entries);
        for first in (0..entries).step_by(AT_A_TIME as usize) {
            let mut part = redis::pipe();
            for id in first..entries.min(first + AT_A_TIME) {
                let key = format!("cache:{namespace}:thing:{id}");
                part.cmd("HSET").arg(&key).arg(&[("id", id.to_string()), ("text", text(BYTES))]).ignore();
                part.cmd("EXPIRE").arg(&key).arg(HOUR).ignore();
            }
            part.exec_async(&mut connection).await?;
        }
    }
    Ok(())
}

fn text(bytes: usize) -> String {
    "x".repeat(bytes)
}

/// The record that each cache is asked for.
const ID: u64 = 1;

async fn fill(cache: &Cache<Thing>, bytes: usize) -> Result<(), Failure> {
    cache.refresh(ID, move |id| async move { Ok::<_, BoxError>(Some(Thing { id, text: text(bytes) })) }).await?;
    Ok(())
}

async fn get(cache: &Cache<Thing>, id: u64) {
    std::hint::black_box(cache.get(id, never).await.expect("a hit"));
}

#[derive(Clone)]
struct AmongEntries {
    cache: Cache<Thing>,
    entries: u64,
}

impl Operation for AmongEntries {
    async fn call(&mut self, at: usize) {
        get(&self.cache, at as u64 % self.entries).await;
    }
}

#[derive(Clone)]
struct OfSize(Cache<Thing>);

impl Operation for OfSize {
    async fn call(&mut self, _at: usize) {
        get(&self.0, ID).await;
    }
}

#[derive(Clone)]
struct OfTypes(Arc<[Cache<Thing>]>);

impl Operation for OfTypes {
    async fn call(&mut self, at: usize) {
        get(&self.0[at % self.0.len()], ID).await;
    }
}
