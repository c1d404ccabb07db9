//! The bare driver: each command sent as in its documentation, and its reply decoded by hand.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Script, Value};
use tokio::sync::{Mutex, Semaphore};

use crate::Failure;
use crate::measure::{Contender, Operation};
use crate::records::{IDS, Product, Record, id};

pub(crate) async fn connect(url: &str) -> Result<MultiplexedConnection, Failure> {
    let mut address = redis::IntoConnectionInfo::into_connection_info(url)?;
    let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
    let settings = address.redis_settings().clone().set_protocol(redis::ProtocolVersion::RESP3);
    address = address.set_tcp_settings(tcp).set_redis_settings(settings);
    // The default of half a second may be too short with many callers.
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(30)));
    Ok(redis::Client::open(address)?.get_multiplexed_async_connection_with_config(&patient).await?)
}

pub(super) async fn hits<R: Record>(url: &str) -> Result<Vec<Contender>, Failure> {
    let mut connection = connect(url).await?;
    write_hashes::<R>(&mut connection).await?;
    let mut blobs = redis::pipe();
    for at in 0..IDS {
        blobs.cmd("SET").arg(blob_key::<R>(at)).arg(serde_json::to_vec(&R::sample(id(at)))?).ignore();
    }
    blobs.exec_async(&mut connection).await?;
    Ok(vec![
        Contender::new("raw HGETALL", Hgetall::<R>(connection.clone(), PhantomData)),
        Contender::new("raw HMGET", Hmget::<R>(connection.clone(), PhantomData)),
        Contender::new("raw GET + serde_json", GetJson::<R>(connection, PhantomData)),
    ])
}

async fn write_hashes<R: Record>(connection: &mut MultiplexedConnection) -> Result<(), Failure> {
    let mut hashes = redis::pipe();
    for at in 0..IDS {
        let key = key::<R>(at);
        hashes.cmd("DEL").arg(&key).ignore().cmd("HSET").arg(&key).arg(R::sample(id(at)).pairs()).ignore();
    }
    Ok(hashes.exec_async(connection).await?)
}

/// As long as the keys of cache-aside.
fn key<R: Record>(at: usize) -> String {
    format!("raw-h:bench:{}:{}", R::SCHEMA.entity, id(at))
}

fn blob_key<R: Record>(at: usize) -> String {
    format!("raw-b:bench:{}:{}", R::SCHEMA.entity, id(at))
}

struct Hgetall<R>(MultiplexedConnection, PhantomData<fn() -> R>);

impl<R: Record> Operation for Hgetall<R> {
    async fn call(&mut self, at: usize) {
        let reply = redis::cmd("HGETALL").arg(key::<R>(at)).query_async(&mut self.0).await;
        std::hint::black_box(R::from_pairs(pairs(reply)).expect("it was stored"));
    }
}

fn pairs(reply: redis::RedisResult<Value>) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    let Ok(Value::Map(pairs)) = reply else { panic!("{reply:?}") };
    pairs.into_iter().map(|pair| match pair {
        (Value::BulkString(name), Value::BulkString(value)) => (name, value),
        pair => panic!("{pair:?}"),
    })
}

struct Hmget<R>(MultiplexedConnection, PhantomData<fn() -> R>);

impl<R: Record> Operation for Hmget<R> {
    async fn call(&mut self, at: usize) {
        let reply = redis::cmd("HMGET").arg(key::<R>(at)).arg(R::NAMES).query_async(&mut self.0).await;
        let Ok(Value::Array(values)) = reply else { panic!("{reply:?}") };
        let values = values.into_iter().map(|value| match value {
            Value::BulkString(value) => value,
            value => panic!("{value:?}"),
        });
        std::hint::black_box(R::from_values(values).expect("it was stored"));
    }
}

struct GetJson<R>(MultiplexedConnection, PhantomData<fn() -> R>);

impl<R: Record> Operation for GetJson<R> {
    async fn call(&mut self, at: usize) {
        let reply = redis::cmd("GET").arg(blob_key::<R>(at)).query_async(&mut self.0).await;
        let Ok(Value::BulkString(text)) = reply else { panic!("{reply:?}") };
        std::hint::black_box(serde_json::from_slice::<R>(&text).expect("it was stored"));
    }
}

macro_rules! clone {
    ($($operation:ident)*) => {$(
        impl<R> Clone for $operation<R> {
            fn clone(&self) -> Self {
                Self(self.0.clone(), PhantomData)
            }
        }
    )*};
}

clone!(Hgetall Hmget GetJson);

/// The bare commands of a miss: look, take a lock, load, store with the same script as cache-aside.
pub(super) async fn miss(url: &str) -> Result<Contender, Failure> {
    const FILL: &str = include_str!("../../../src/backend/redis/scripts/fill.lua");
    let fill = Arc::new(Script::new(FILL));
    let mut connection = connect(url).await?;
    // Loaded before the measurement begins.
    fill.load_async(&mut connection).await?;
    Ok(Contender::new("raw HGETALL, SET NX PX, fill script", Miss { connection, fill }))
}

/// The TTL of these fills, in milliseconds.
pub(super) const FILLED_FOR: u64 = 1_000;

#[derive(Clone)]
struct Miss {
    connection: MultiplexedConnection,
    fill: Arc<Script>,
}

impl Miss {
    /// As long as the keys and the token of cache-aside.
    fn keys(id: &str) -> (String, String) {
        let key = format!("raw-m:bench:product:{id}");
        let lock = format!("{{{key}}}:lock");
        (key, lock)
    }

    fn token() -> String {
        format!("{:032x}", rand::random::<u128>())
    }
}

impl Operation for Miss {
    async fn call(&mut self, _at: usize) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = format!("n-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let (key, lock) = Self::keys(&id);
        let found: Value = redis::cmd("HGETALL").arg(&key).query_async(&mut self.connection).await.expect("a reply");
        assert!(matches!(found, Value::Map(pairs) if pairs.is_empty()));
        let token = Self::token();
        let mut lease = redis::cmd("SET");
        lease.arg(&lock).arg(&token).arg("NX").arg("PX").arg(5_000);
        let granted: Value = lease.query_async(&mut self.connection).await.expect("a reply");
        assert_eq!(granted, Value::Okay);
        let record = Product::sample(id);
        let mut fill = self.fill.key(&key);
        fill.key(&lock).arg(token).arg(FILLED_FOR);
        for (name, value) in record.pairs() {
            fill.arg(name).arg(value);
        }
        let filled: u8 = fill.invoke_async(&mut self.connection).await.expect("a reply");
        assert_eq!(filled, 1);
        std::hint::black_box(Arc::new(record));
    }
}

/// WATCH, EXISTS, MULTI, HSET, EXEC, each time on an exclusive connection.
pub(super) async fn update(url: &str) -> Result<Contender, Failure> {
    const CONNECTIONS: usize = cache_aside::defaults::UPDATE_CONNECTIONS;
    write_hashes::<Product>(&mut connect(url).await?).await?;
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        idle.push(connect(url).await?);
    }
    let pool = Pool { idle: Arc::new(Mutex::new(idle)), turns: Arc::new(Semaphore::new(CONNECTIONS)) };
    Ok(Contender::new("raw pooled WATCH, EXISTS, MULTI, EXEC", Update(pool)))
}

#[derive(Clone)]
struct Pool {
    idle: Arc<Mutex<Vec<MultiplexedConnection>>>,
    turns: Arc<Semaphore>,
}

#[derive(Clone)]
struct Update(Pool);

impl Operation for Update {
    async fn call(&mut self, at: usize) {
        let Pool { idle, turns } = &self.0;
        let _turn = turns.acquire().await.expect("it is never closed");
        let mut connection = idle.lock().await.pop().expect("one for each turn");
        let key = key::<Product>(at);
        loop {
            redis::cmd("WATCH").arg(&key).exec_async(&mut connection).await.expect("a reply");
            let exists: bool = redis::cmd("EXISTS").arg(&key).query_async(&mut connection).await.expect("a reply");
            assert!(exists);
            let mut update = redis::pipe();
            update.atomic().cmd("HSET").arg(&key).arg("stock").arg(at % 100).ignore();
            let done: Option<()> = update.query_async(&mut connection).await.expect("a reply");
            if done.is_some() {
                break;
            }
        }
        idle.lock().await.push(connection);
    }
}

pub(super) async fn delete(url: &str) -> Result<Contender, Failure> {
    Ok(Contender::new("raw DEL", Delete(connect(url).await?)))
}

#[derive(Clone)]
struct Delete(MultiplexedConnection);

impl Operation for Delete {
    async fn call(&mut self, at: usize) {
        let deleted = redis::cmd("DEL").arg(format!("raw-none:{}", id(at))).query_async(&mut self.0).await;
        let _there: bool = deleted.expect("a reply");
    }
}
