//! cache-aside.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cache_aside::{Backend, BoxError, Cache, Cacheable, NearCache, Outcome};

use super::in_memory::ENTRIES;
use super::raw::FILLED_FOR;
use crate::Failure;
use crate::measure::{Contender, Operation};
use crate::records::{IDS, Product, Record, borrowed_id, id};

const MANY: usize = 100;
/// The longest run whose entries live until its end.
const WHOLE_RUN: Duration = Duration::from_secs(3_600);

pub(super) async fn hits<R: Record>(url: &str) -> Result<Vec<Contender>, Failure> {
    let cache = filled::<R>(Backend::connect(url).await?).await?;
    Ok(vec![Contender::new("cache-aside get", Get(cache.clone())), Contender::new("cache-aside peek", Peek(cache))])
}

pub(super) async fn other_reads(url: &str) -> Result<Vec<Contender>, Failure> {
    let cache = Cache::<Product>::builder(Backend::connect(url).await?);
    let cache = cache.ttl(WHOLE_RUN * 2).not_found_ttl(WHOLE_RUN).build()?;
    for at in 0..IDS {
        cache.refresh(id_of_nothing(at), load_nothing).await?;
    }
    Ok(vec![
        Contender::new("cache-aside get_fields, 2 fields", GetFields(cache.clone())),
        Contender::new("cache-aside get, not found", GetNothing(cache)),
    ])
}

pub(super) async fn near_hits(url: &str) -> Result<Contender, Failure> {
    let cache = Cache::<Product>::builder(Backend::connect(url).await?).ttl(WHOLE_RUN * 2);
    let cache = cache.near_cache(NearCache::entries(ENTRIES).max_age(WHOLE_RUN)).build()?;
    let filled = async {
        for at in 0..IDS {
            while cache.lookup(borrowed_id(at), load).await?.outcome != Outcome::NearHit {
                // The message about the fill comes a moment later.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        Ok::<_, Failure>(())
    };
    let in_time = tokio::time::timeout(Duration::from_secs(30), filled).await;
    in_time
        .map_err(|_elapsed| "the server tells nothing of changes: leave out the table of near hits, with --tables")??;
    Ok(Contender::new("cache-aside get, near cache", GetNear(cache)))
}

pub(super) async fn embedded() -> Result<Vec<Contender>, Failure> {
    let cache = filled::<Product>(Backend::connect("memory://").await?).await?;
    Ok(vec![Contender::new("cache-aside get, memory://", Get(cache))])
}

pub(super) async fn batches(url: &str) -> Result<Vec<Contender>, Failure> {
    let cache = filled::<Product>(Backend::connect(url).await?).await?;
    Ok(vec![
        Contender::new("cache-aside 100 gets, one after the other", OneByOne(cache.clone())),
        Contender::new("cache-aside get_many of 100", GetMany(cache)),
    ])
}

pub(super) async fn miss(url: &str) -> Result<Contender, Failure> {
    let cache = Cache::builder(Backend::connect(url).await?).ttl(Duration::from_millis(FILLED_FOR)).jitter(0.0);
    Ok(Contender::new("cache-aside get, miss and fill", Miss(cache.build()?)))
}

pub(super) async fn updates(url: &str) -> Result<Vec<Contender>, Failure> {
    let cache = filled::<Product>(Backend::connect(url).await?).await?;
    Ok(vec![
        Contender::new("cache-aside update_field", UpdateField(cache.clone())),
        Contender::new("cache-aside modify", Modify(cache)),
    ])
}

pub(super) async fn invalidate(url: &str) -> Result<Contender, Failure> {
    let cache = Cache::<Absent>::new(Backend::connect(url).await?);
    Ok(Contender::new("cache-aside invalidate", Invalidate(cache)))
}

/// A cache with all records, which live for a whole TTL even if they existed before.
pub(super) async fn filled<R: Record>(backend: Backend) -> Result<Cache<R>, Failure> {
    let cache = Cache::<R>::new(backend);
    for at in 0..IDS {
        cache.refresh(id(at), load).await?;
    }
    Ok(cache)
}

async fn load<R: Record>(id: String) -> Result<Option<R>, BoxError> {
    Ok(Some(R::sample(id)))
}

/// The loader for reads that have to be hits.
pub(super) async fn never<K, R>(_ids: K) -> Result<R, BoxError> {
    Err("it was not in the cache, or not in time: then this measures something else".into())
}

fn id_of_nothing(at: usize) -> String {
    ["none-", &id(at)].concat()
}

async fn load_nothing(_id: String) -> Result<Option<Product>, BoxError> {
    Ok(None)
}

#[derive(Debug, Cacheable)]
#[cacheable(namespace = "bench")]
struct Absent {
    #[cacheable(id)]
    id: String,
}

#[derive(Clone)]
struct Get<R: Record>(Cache<R>);

impl<R: Record> Operation for Get<R> {
    async fn call(&mut self, at: usize) {
        std::hint::black_box(self.0.get(id(at), never).await.expect("a hit"));
    }
}

#[derive(Clone)]
struct GetNear(Cache<Product>);

impl Operation for GetNear {
    async fn call(&mut self, at: usize) {
        std::hint::black_box(self.0.get(borrowed_id(at), never).await.expect("a hit"));
    }
}

#[derive(Clone)]
struct Peek<R: Record>(Cache<R>);

impl<R: Record> Operation for Peek<R> {
    async fn call(&mut self, at: usize) {
        std::hint::black_box(self.0.peek(id(at)).await.expect("a reply").expect("a hit"));
    }
}

#[derive(Clone)]
struct GetFields(Cache<Product>);

impl Operation for GetFields {
    async fn call(&mut self, at: usize) {
        let fields = (Product::FIELDS.name, Product::FIELDS.stock);
        std::hint::black_box(self.0.get_fields(id(at), fields, never).await.expect("a hit"));
    }
}

#[derive(Clone)]
struct GetNothing(Cache<Product>);

impl Operation for GetNothing {
    async fn call(&mut self, at: usize) {
        let found = self.0.get(id_of_nothing(at), never).await.expect("a hit");
        assert!(found.is_none());
    }
}

#[derive(Clone)]
struct OneByOne(Cache<Product>);

impl Operation for OneByOne {
    async fn call(&mut self, at: usize) {
        for at in at..at + MANY {
            std::hint::black_box(self.0.get(id(at), never).await.expect("a hit"));
        }
    }
}

#[derive(Clone)]
struct GetMany(Cache<Product>);

impl Operation for GetMany {
    async fn call(&mut self, at: usize) {
        let hits = self.0.get_many((at..at + MANY).map(id), never::<_, Vec<Product>>).await;
        assert!(std::hint::black_box(hits).iter().all(Result::is_ok), "they were not in the cache, or not in time");
    }
}

#[derive(Clone)]
struct Miss(Cache<Product>);

impl Operation for Miss {
    async fn call(&mut self, _at: usize) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = format!("n-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        std::hint::black_box(self.0.get(id, load).await.expect("a reply"));
    }
}

#[derive(Clone)]
struct UpdateField(Cache<Product>);

impl Operation for UpdateField {
    async fn call(&mut self, at: usize) {
        let stock = u32::try_from(at % 100).expect("it is small");
        assert!(self.0.update_field(id(at), Product::FIELDS.stock, stock).await.expect("a reply"));
    }
}

#[derive(Clone)]
struct Modify(Cache<Product>);

impl Operation for Modify {
    async fn call(&mut self, at: usize) {
        let modified = self.0.modify(id(at), |product| product.stock = product.stock.wrapping_add(1)).await;
        std::hint::black_box(modified.expect("a reply"));
    }
}

#[derive(Clone)]
struct Invalidate(Cache<Absent>);

impl Operation for Invalidate {
    async fn call(&mut self, at: usize) {
        self.0.invalidate(id(at)).await.expect("a reply");
    }
}
