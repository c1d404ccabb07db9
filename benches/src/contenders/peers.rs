//! Other caches and drivers, each used as in its documentation, with its own kind of record.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use cached::{AsyncRedisCache, ConcurrentCachedAsync};
use hitbox::backend::CacheBackend;
use hitbox::{CacheContext, CacheKey, CacheValue};
use hitbox_redis::{ConnectionMode, RedisBackend};
use rustis::client::Client;
use rustis::commands::{GenericCommands, HashCommands};

use crate::Failure;
use crate::measure::{Contender, Operation};
use crate::records::{IDS, Record, id};

pub(super) async fn hits<R: Record>(url: &str) -> Result<Vec<Contender>, Failure> {
    let cached = AsyncRedisCache::<String, R>::builder(format!("cached:{}", R::SCHEMA.entity))
        .ttl(Duration::from_secs(3_600))
        .connection_string(url);
    let cached = Arc::new(cached.build().await?);
    let hitbox = RedisBackend::builder().connection(ConnectionMode::single(url)).build()?;
    let hitbox = Arc::new(hitbox);
    let rustis = Client::connect(url).await?;
    for at in 0..IDS {
        let record = R::sample(id(at));
        cached.async_cache_set(id(at), record.clone()).await?;
        rustis.del(rustis_key::<R>(at)).await?;
        rustis.hset(rustis_key::<R>(at), record.pairs()).await?;
        let value = CacheValue::new(record, None, None);
        hitbox
            .set::<R>(&hitbox_key::<R>(at), &value, &mut CacheContext::default().boxed())
            .await
            .map_err(|error| error.to_string())?;
    }
    Ok(vec![
        Contender::new("cached", Cached(cached)),
        Contender::new("hitbox", Hitbox::<R>(hitbox, PhantomData)),
        Contender::new("rustis", Rustis::<R>(rustis, PhantomData)),
    ])
}

struct Cached<R>(Arc<AsyncRedisCache<String, R>>);

impl<R> Clone for Cached<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<R: Record> Operation for Cached<R> {
    async fn call(&mut self, at: usize) {
        let record = self.0.async_cache_get(&id(at)).await.expect("the server answers");
        std::hint::black_box(record.expect("it was stored"));
    }
}

struct Hitbox<R>(Arc<RedisBackend>, PhantomData<fn() -> R>);

impl<R> Clone for Hitbox<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

fn hitbox_key<R: Record>(at: usize) -> CacheKey {
    CacheKey::from_str(&format!("hitbox:{}", R::SCHEMA.entity), &id(at))
}

impl<R: Record> Operation for Hitbox<R> {
    async fn call(&mut self, at: usize) {
        let mut context = CacheContext::default().boxed();
        let record = self.0.get::<R>(&hitbox_key::<R>(at), &mut context).await.expect("the server answers");
        std::hint::black_box(record.expect("it was stored"));
    }
}

struct Rustis<R>(Client, PhantomData<fn() -> R>);

impl<R> Clone for Rustis<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

fn rustis_key<R: Record>(at: usize) -> String {
    format!("rustis:bench:{}:{}", R::SCHEMA.entity, id(at))
}

impl<R: Record> Operation for Rustis<R> {
    async fn call(&mut self, at: usize) {
        std::hint::black_box(self.0.hgetall::<R>(rustis_key::<R>(at)).await.expect("it was stored"));
    }
}
