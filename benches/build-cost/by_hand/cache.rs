//! A hand-written read-through cache over Redis: records as JSON, and a lock around each load.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncCommands, Client, ExistenceCheck, Script, SetExpiry, SetOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

const TTL: Duration = Duration::from_secs(60);
const NOT_FOUND_TTL: Duration = Duration::from_secs(5);
const LOCKED_FOR: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
const POLLS: u32 = 100;

pub trait Cached: Serialize + DeserializeOwned {
    type Id: Clone + Eq + Hash + Display;

    const ENTITY: &'static str;

    fn id(&self) -> Self::Id;
}

pub struct Lookup<T> {
    pub value: Option<T>,
    pub is_hit: bool,
}

enum Turn<T> {
    Filled(Option<T>),
    Locked,
    TimedOut,
}

#[derive(Clone)]
pub struct Cache {
    connection: ConnectionManager,
    unlock: Script,
}

impl Cache {
    pub async fn connect(url: &str) -> Result<Self, BoxError> {
        let config = ConnectionManagerConfig::new().set_response_timeout(Some(Duration::from_secs(1)));
        let connection = Client::open(url)?.get_connection_manager_with_config(config).await?;
        let unlock = Script::new("if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end");
        Ok(Self { connection, unlock })
    }

    pub async fn get<T, F, Fut>(&self, id: &T::Id, load: F) -> Result<Option<T>, BoxError>
    where
        T: Cached,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Option<T>, BoxError>>,
    {
        Ok(self.lookup(id, load).await?.value)
    }

    pub async fn lookup<T, F, Fut>(&self, id: &T::Id, load: F) -> Result<Lookup<T>, BoxError>
    where
        T: Cached,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Option<T>, BoxError>>,
    {
        let key = key::<T>(id);
        if let Some(value) = self.find(&key).await? {
            return Ok(Lookup { value, is_hit: true });
        }
        let lock = format!("{key}:lock");
        let token = rand::random::<u64>();
        let turn = self.wait_for_turn(&key, &lock, token).await?;
        if let Turn::Filled(value) = turn {
            return Ok(Lookup { value, is_hit: true });
        }
        let loaded = load().await;
        if let Ok(value) = &loaded {
            self.fill(&key, value).await?;
        }
        if let Turn::Locked = turn {
            self.unlock(&lock, token).await?;
        }
        Ok(Lookup { value: loaded?, is_hit: false })
    }

    pub async fn get_many<T, F, Fut>(&self, ids: &[T::Id], load: F) -> Result<Vec<Option<T>>, BoxError>
    where
        T: Cached,
        F: FnOnce(Vec<T::Id>) -> Fut,
        Fut: Future<Output = Result<Vec<T>, BoxError>>,
    {
        let keys: Vec<_> = ids.iter().map(key::<T>).collect();
        let found: Vec<Option<Vec<u8>>> = self.connection.clone().mget(&keys).await?;
        let mut values = Vec::with_capacity(ids.len());
        let mut missing = Vec::new();
        for (at, text) in found.into_iter().enumerate() {
            match text {
                Some(text) => values.push(serde_json::from_slice(&text)?),
                None => {
                    missing.push(at);
                    values.push(None);
                }
            }
        }
        if missing.is_empty() {
            return Ok(values);
        }
        let loaded = load(missing.iter().map(|at| ids[*at].clone()).collect()).await?;
        let mut loaded: HashMap<_, _> = loaded.into_iter().map(|record| (record.id(), record)).collect();
        let mut fills = redis::pipe();
        for at in missing {
            values[at] = loaded.remove(&ids[at]);
            fills.set_ex(&keys[at], serde_json::to_vec(&values[at])?, ttl(&values[at]).as_secs()).ignore();
        }
        fills.exec_async(&mut self.connection.clone()).await?;
        Ok(values)
    }

    /// Changes a cached record and keeps its TTL.
    pub async fn update<T: Cached>(&self, id: &T::Id, change: impl FnOnce(&mut T)) -> Result<bool, BoxError> {
        let key = key::<T>(id);
        let Some(Some(mut record)) = self.find::<T>(&key).await? else { return Ok(false) };
        change(&mut record);
        self.replace(&key, serde_json::to_vec(&record)?).await
    }

    pub async fn invalidate<T: Cached>(&self, id: &T::Id) -> Result<bool, BoxError> {
        Ok(self.connection.clone().del(key::<T>(id)).await?)
    }

    /// Returns `Some(None)` for a record that is known not to exist.
    async fn find<T: Cached>(&self, key: &str) -> Result<Option<Option<T>>, BoxError> {
        let text: Option<Vec<u8>> = self.connection.clone().get(key).await?;
        Ok(text.map(|text| serde_json::from_slice(&text)).transpose()?)
    }

    async fn wait_for_turn<T: Cached>(&self, key: &str, lock: &str, token: u64) -> Result<Turn<T>, BoxError> {
        for _ in 0..POLLS {
            if self.lock(lock, token).await? {
                return Ok(Turn::Locked);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
            if let Some(value) = self.find(key).await? {
                return Ok(Turn::Filled(value));
            }
        }
        Ok(Turn::TimedOut)
    }

    async fn fill<T: Cached>(&self, key: &str, value: &Option<T>) -> Result<(), BoxError> {
        self.store(key, serde_json::to_vec(value)?, ttl(value)).await
    }

    async fn store(&self, key: &str, text: Vec<u8>, ttl: Duration) -> Result<(), BoxError> {
        Ok(self.connection.clone().set_ex(key, text, ttl.as_secs()).await?)
    }

    async fn replace(&self, key: &str, text: Vec<u8>) -> Result<bool, BoxError> {
        let options = SetOptions::default().conditional_set(ExistenceCheck::XX).with_expiration(SetExpiry::KEEPTTL);
        let replaced: Option<String> = self.connection.clone().set_options(key, text, options).await?;
        Ok(replaced.is_some())
    }

    async fn lock(&self, lock: &str, token: u64) -> Result<bool, BoxError> {
        let options = SetOptions::default()
            .conditional_set(ExistenceCheck::NX)
            .with_expiration(SetExpiry::PX(LOCKED_FOR.as_millis() as u64));
        let locked: Option<String> = self.connection.clone().set_options(lock, token, options).await?;
        Ok(locked.is_some())
    }

    async fn unlock(&self, lock: &str, token: u64) -> Result<(), BoxError> {
        Ok(self.unlock.key(lock).arg(token).invoke_async(&mut self.connection.clone()).await?)
    }
}

fn key<T: Cached>(id: &T::Id) -> String {
    format!("shop:{}:{id}", T::ENTITY)
}

fn ttl<T>(value: &Option<T>) -> Duration {
    if value.is_some() { TTL } else { NOT_FOUND_TTL }
}
