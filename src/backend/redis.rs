//! The Redis backend: the protocol's steps on a Redis or Valkey server, or on a cluster of them.
//!
//! To each server there is a connection for reads (`redis/reads.rs`), and one for all other steps but updates, whose commands
//! go out together (`redis/pipelines.rs`); they reconnect by themselves. `update` needs WATCH, whose state belongs to the
//! connection: it has connections of its own (`redis/update.rs`). The driver's types stay in here.

#[cfg(feature = "cluster")]
mod cluster;
mod connect;
mod errors;
mod in_place;
mod node;
mod pipelines;
mod reads;
mod replies;
mod script;
#[cfg_attr(not(feature = "sentinel"), path = "redis/without_sentinel.rs")]
mod sentinel;
mod servers;
#[cfg_attr(not(feature = "tls"), path = "redis/without_tls.rs")]
mod tls;
mod tracker;
mod update;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::try_join_all;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, ServerErrorKind, ToRedisArgs, Value};
use resp_rs::resp2::Frame;
use tokio::time::Instant;

#[cfg(feature = "cluster")]
use self::cluster::Cluster;
pub(super) use self::connect::Address;
use self::connect::Generation;
use self::errors::{is_elsewhere, is_on_the_move, is_wrong_type, unexpected_reply};
pub(super) use self::node::Limits;
use self::node::Node;
use self::replies::{command, entry, found, look, pttl, read_hash, remaining};
use self::script::{ABANDON, CLEAR_LEASE, FILL, INVALIDATE, POSTPONE, RENEW, Script};
pub(super) use self::sentinel::Sentinels;
use self::servers::Servers;
pub(super) use self::tls::Tls;
pub(super) use self::tracker::track;
use self::update::Updates;
use super::breaker::Breaker;
use super::{ALL, Acquired, Cursor, Decide, Filled, Look, Position, Selection, StepError, Steps, Swept, Token};
use crate::entry::{Entry, Found};
use crate::key::Key;
use crate::record::StoredField;

/// Until a step is tried again whose two keys are at two servers, as long as their hash slot moves.
const PAUSE_OF_MOVE: Duration = Duration::from_millis(5);
/// How often a command may be sent.
const ONCE: u32 = 1;
const TWICE: u32 = 2;

pub(super) struct Redis {
    servers: Servers,
    updates: Updates,
    operation_timeout: Duration,
}

impl Redis {
    /// Prepares the connections to one server; none is made yet.
    pub(super) fn new(address: Address, limits: Limits) -> Result<Self, String> {
        Ok(Self::on(Servers::One(Arc::new(Node::new(address, Generation::default(), limits)?)), limits))
    }

    /// The same for the master that the sentinels name; must be called within a tokio runtime.
    pub(super) fn following(sentinels: Sentinels, limits: Limits) -> Result<Self, String> {
        Ok(Self::on(Servers::One(Arc::new(Node::following(sentinels, limits)?)), limits))
    }

    /// The same for the cluster that these servers belong to.
    #[cfg(feature = "cluster")]
    pub(super) fn cluster(seeds: Vec<Address>, limits: Limits) -> Result<Self, String> {
        Ok(Self::on(Servers::Cluster(Arc::new(Cluster::new(seeds, limits)?)), limits))
    }

    fn on(servers: Servers, limits: Limits) -> Self {
        let operation_timeout = limits.operation_timeout;
        Self { servers, updates: Updates::new(operation_timeout), operation_timeout }
    }

    /// Says that a step, of this key if of one, got no answer within its limit.
    pub(super) fn timed_out(&self, key: Option<&Key>, limit: Duration) {
        self.servers.timed_out(key, limit);
    }

    /// The breaker of the server that has the key, if it has one of its own.
    pub(super) fn breaker_of_server(&self, key: &Key) -> Option<Arc<Breaker>> {
        self.servers.breaker(key)
    }

    /// How many connections of updates are in use, and how many are idle.
    pub(super) fn update_connections(&self) -> (usize, usize) {
        let used = |(in_use, idle), node: Arc<Node>| {
            let status = node.updates.status();
            (in_use + status.size.saturating_sub(status.available), idle + status.available)
        };
        self.servers.known_primaries().into_iter().fold((0, 0), used)
    }

    /// Counts the changes after which entries may be at another server.
    pub(super) fn changes(&self) -> Arc<AtomicU64> {
        self.servers.changes()
    }

    fn run<R: FromRedisValue>(
        &self,
        key: &Key,
        command: impl Fn() -> Cmd + Sync,
    ) -> impl Future<Output = RedisResult<R>> {
        self.run_up_to(ONCE, key, command)
    }

    /// Runs a command that may be carried out twice.
    fn run_idempotent<R: FromRedisValue>(
        &self,
        key: &Key,
        command: impl Fn() -> Cmd + Sync,
    ) -> impl Future<Output = RedisResult<R>> {
        self.run_up_to(TWICE, key, command)
    }

    /// Runs a command, again if the connection was cut: one that was cut while idle is noticed by its first use.
    #[expect(clippy::manual_async_fn, reason = "an async fn's arguments take their memory twice")]
    fn run_up_to<R: FromRedisValue>(
        &self,
        mut attempts: u32,
        key: &Key,
        command: impl Fn() -> Cmd + Sync,
    ) -> impl Future<Output = RedisResult<R>> {
        async move {
            loop {
                match self.servers.run(key, &command).await {
                    Err(error) if error.is_connection_dropped() && attempts > 1 => attempts -= 1,
                    reply => return Ok(R::from_redis_value(reply?)?),
                }
            }
        }
    }

    /// The same for several commands that may be carried out twice, in one round trip.
    async fn run_all_idempotent<const N: usize>(
        &self,
        key: &Key,
        commands: impl Fn() -> [Cmd; N] + Sync,
    ) -> RedisResult<[RedisResult<Value>; N]> {
        let mut attempts = TWICE;
        loop {
            match self.servers.run_all(key, &commands).await {
                Err(error) if error.is_connection_dropped() && attempts > 1 => attempts -= 1,
                replies => return replies,
            }
        }
    }

    /// Reads L, and then looks.
    async fn look_with_holder(&self, key: &Key) -> RedisResult<(Option<Vec<u8>>, Look)> {
        let commands = || {
            let [get, lease_ttl] = lease(key);
            let [left, entry] = look(key, &ALL);
            [get, lease_ttl, left, entry]
        };
        let [get, lease_ttl, left, entry] = self.run_all_idempotent(key, commands).await?;
        Ok((holder(get)?, Look { found: found(left, entry, &ALL)?, lease_ttl: remaining(&lease_ttl?) }))
    }

    /// Runs commands over the connection of reads. Nothing comes back where the shared one has to be used, since this one
    /// can't, or the key is elsewhere: then the shared one's ways lead there.
    async fn read_in_place<const N: usize>(
        &self,
        key: &Key,
        encode: impl Fn(&mut Vec<u8>),
    ) -> RedisResult<Option<[RedisResult<Frame>; N]>> {
        let mut replies = self.servers.read(key, &encode).await;
        if let Some(Err(error)) = &replies
            && error.is_connection_dropped()
        {
            // One that was cut while idle is noticed by its first use.
            replies = self.servers.read(key, &encode).await;
        }
        let is_elsewhere = |reply: &RedisResult<Frame>| reply.as_ref().is_err_and(is_elsewhere);
        match replies {
            Some(Ok(replies)) if replies.iter().any(is_elsewhere) => Ok(None),
            replies => replies.transpose(),
        }
    }

    #[expect(clippy::manual_async_fn, reason = "an async fn's arguments take their memory twice")]
    fn run_script(
        &self,
        script: &Script,
        key: &Key,
        keys: &[&str],
        args: &[&[u8]],
    ) -> impl Future<Output = RedisResult<bool>> {
        async move {
            let attempts = if script.is_idempotent { TWICE } else { ONCE };
            match self.run_up_to(attempts, key, || script.by_hash(keys, args)).await {
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    self.run(key, || script.by_text(keys, args)).boxed().await
                }
                reply => reply,
            }
        }
    }
}

impl Steps for Redis {
    async fn ping(&self, key: Option<&Key>) -> Result<(), StepError> {
        match key {
            Some(key) => self.run(key, || redis::cmd("PING")).await?,
            None => self.servers.ping().await?,
        }
        Ok(())
    }

    async fn read(&self, key: &Key, selection: &Selection) -> Result<Option<Entry>, StepError> {
        let command = |out: &mut Vec<u8>| in_place::encode_read(out, key, selection);
        if let Some([reply]) = self.read_in_place(key, command).await? {
            return Ok(in_place::entry(reply, selection)?);
        }
        let reply = self.run_idempotent(key, || read_hash(key, selection)).await;
        Ok(entry(reply, selection)?)
    }

    async fn read_with_ttl(&self, key: &Key, selection: &Selection) -> Result<Option<Found>, StepError> {
        let commands = |out: &mut Vec<u8>| {
            reads::encode(out, &[b"PTTL", key.as_str().as_bytes()]);
            in_place::encode_read(out, key, selection);
        };
        if let Some([left, reply]) = self.read_in_place(key, commands).await? {
            let left = in_place::remaining(&left?);
            return Ok(in_place::entry(reply, selection)?.map(|entry| Found { entry, left }));
        }
        // Boxed, since hits of some caches seldom come here, and their futures stay small.
        let [left, reply] = self.run_all_idempotent(key, || look(key, selection)).boxed().await?;
        Ok(found(left, reply, selection)?)
    }

    async fn acquire(&self, key: &Key, token: &Token, lease_for: Duration) -> Result<Acquired, StepError> {
        let (lock, lease_millis) = (key.lock(), millis(lease_for));
        loop {
            let commands = || {
                let bytes = lock.len() + token.0.len() + lease_millis.len() + "NXPX".len();
                let mut set = command("SET", 5, bytes);
                set.arg(lock).arg(&token.0).arg("NX").arg("PX").arg(&lease_millis);
                [set, exists(key)]
            };
            let [set, is_there] = self.servers.run_all(key, commands).await?;
            let is_set = match set? {
                Value::Okay => true,
                Value::Nil => false,
                _ => return Err(unexpected_reply().into()),
            };
            let is_there = bool::from_redis_value(is_there?).map_err(RedisError::from)?;
            if is_set && !is_there {
                return Ok(Acquired { granted: true, found: None, busy_for: None, postponed: false });
            }
            // Boxed, as what follows: it is not for the first load of a record, whose future stays small.
            let (holder, Look { found, lease_ttl }) = if is_there {
                self.look_with_holder(key).boxed().await?
            } else {
                let [get, lease_ttl] = self.run_all_idempotent(key, || lease(key)).boxed().await?;
                (holder(get)?, Look { found: None, lease_ttl: remaining(&lease_ttl?) })
            };
            let is_held_by = |token: &Token| holder.as_deref() == Some(token.0.as_bytes());
            let granted = is_held_by(token);
            if !granted && (holder.is_none() || lease_ttl.is_none()) {
                // It has just ended, or nobody would ever release it.
                self.run_script(&CLEAR_LEASE, key, &[lock], &[]).boxed().await?;
                continue;
            }
            let postponed = is_held_by(&Token::failed_load());
            let busy_for = if granted || postponed { None } else { lease_ttl };
            return Ok(Acquired { granted, found, busy_for, postponed });
        }
    }

    async fn renew(&self, key: &Key, token: &Token, lease: Duration) -> Result<bool, StepError> {
        let lease = millis(lease);
        Ok(self.run_script(&RENEW, key, &[key.lock()], &[token.0.as_bytes(), lease.as_bytes()]).await?)
    }

    async fn fill(
        &self,
        key: &Key,
        token: &Token,
        fields: Vec<StoredField>,
        ttl: Duration,
    ) -> Result<Filled, StepError> {
        let ttl = millis(ttl);
        let mut args = Vec::with_capacity(2 + 2 * fields.len());
        args.extend([token.0.as_bytes(), ttl.as_bytes()]);
        args.extend(fields.iter().flat_map(|(name, value)| [&**name, value.as_slice()]));
        let given_up = Instant::now() + self.operation_timeout / 2;
        loop {
            match self.run_script(&FILL, key, &[key.as_str(), key.lock()], &args).await {
                Ok(stored) => return Ok(if stored { Filled::Accepted } else { Filled::Fenced }),
                Err(error) if is_on_the_move(&error) && Instant::now() < given_up => {
                    tokio::time::sleep(PAUSE_OF_MOVE).boxed().await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn abandon(&self, key: &Key, token: &Token) -> Result<(), StepError> {
        // By text at once: on a server that is late, nobody would be there any more to answer "no such script".
        let lock = key.lock();
        Ok(self.run_idempotent(key, || ABANDON.by_text(&[lock], &[token.0.as_bytes()])).await?)
    }

    async fn postpone(&self, key: &Key, token: &Token, pause: Duration) -> Result<(), StepError> {
        let (mark, pause) = (Token::failed_load(), millis(pause));
        let args = [token.0.as_bytes(), mark.0.as_bytes(), pause.as_bytes()];
        self.run_script(&POSTPONE, key, &[key.lock()], &args).await?;
        Ok(())
    }

    async fn invalidate(&self, key: &Key) -> Result<bool, StepError> {
        match self.run_script(&INVALIDATE, key, &[key.as_str(), key.lock()], &[]).await {
            Err(error) if is_on_the_move(&error) => {
                // Each by itself. A load that begins in between has read what this invalidation is about.
                revoke(&self.servers, key).await?;
                Ok(self.run_idempotent(key, || delete(key.as_str())).await?)
            }
            reply => Ok(reply?),
        }
    }

    async fn update(&self, key: &Key, selection: &Selection, decide: &mut Decide<'_>) -> Result<bool, StepError> {
        match self.updates.run(&self.servers, key, selection, decide).await? {
            Some(applied) => Ok(applied),
            // Without memory for a transaction, deleting works all the same.
            None => self.invalidate(key).await.map(|_was_there| false),
        }
    }

    async fn look(&self, key: &Key) -> Result<Look, StepError> {
        let commands = || {
            let [left, entry] = look(key, &ALL);
            [left, entry, pttl(key.lock())]
        };
        let [left, entry, lease_ttl] = self.run_all_idempotent(key, commands).await?;
        Ok(Look { found: found(left, entry, &ALL)?, lease_ttl: remaining(&lease_ttl?) })
    }

    async fn sweep(&self, prefix: &str, swept: Swept, cursor: Cursor) -> Result<Cursor, StepError> {
        const KEYS_AT_A_TIME: u32 = 500;
        let generation = self.servers.generation();
        let servers = self.servers.primaries().await?;
        let Position { server, at, .. } = cursor.unwrap_or(Position { server: 0, at: 0, generation });
        let Some(node) = servers.get(server).filter(|_| cursor.is_none_or(|cursor| cursor.generation == generation))
        else {
            return Err(changed_meanwhile());
        };
        let mut scan = redis::cmd("SCAN");
        scan.arg(at).arg("MATCH").arg(pattern(prefix, swept)).arg("COUNT").arg(KEYS_AT_A_TIME);
        let reply = redis::from_redis_value(node.run(scan).await?);
        let (next, found): (u64, Vec<Vec<u8>>) = reply.map_err(RedisError::from)?;
        let found = found.iter().filter(|key| is_of_type(key, prefix, swept));
        try_join_all(found.map(|key| node.run(delete(key)))).await?;
        let (server, at) = if next == 0 { (server + 1, 0) } else { (server, next) };
        if server < servers.len() {
            return Ok(Some(Position { server, at, generation }));
        }
        if self.servers.stood_still(generation).await? { Ok(None) } else { Err(changed_meanwhile()) }
    }
}

#[cfg(feature = "__proof")]
impl super::rig::Bare for Redis {
    async fn put_entry(&self, key: &Key, fields: Vec<StoredField>, ttl: Duration) -> Result<(), StepError> {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (&**name, value.as_slice())).collect();
        let set = || redis::cmd("HSET").arg(key.as_str()).arg(&fields).take();
        let expire = || redis::cmd("PEXPIRE").arg(key.as_str()).arg(millis(ttl)).take();
        // Each by itself: while its slot moves, a transaction is refused.
        self.servers.run(key, || delete(key.as_str())).await?;
        self.servers.run(key, set).await?;
        self.servers.run(key, expire).await?;
        Ok(())
    }

    async fn delete_entry(&self, key: &Key) -> Result<bool, StepError> {
        Ok(self.run(key, || delete(key.as_str())).await?)
    }

    async fn delete_lease(&self, key: &Key) -> Result<(), StepError> {
        Ok(revoke(&self.servers, key).await?)
    }
}

/// The two commands that read L.
fn lease(key: &Key) -> [Cmd; 2] {
    let lock = key.lock();
    [command("GET", 1, lock.len()).arg(lock).take(), pttl(lock)]
}

/// What the reply to GET says is at L, if that is a lease at all.
fn holder(reply: RedisResult<Value>) -> RedisResult<Option<Vec<u8>>> {
    match reply {
        Err(error) if is_wrong_type(&error) => Ok(None),
        reply => Ok(Option::from_redis_value(reply?)?),
    }
}

fn exists(key: &Key) -> Cmd {
    command("EXISTS", 1, key.as_str().len()).arg(key.as_str()).take()
}

fn delete(key: impl ToRedisArgs) -> Cmd {
    redis::cmd("DEL").arg(key).take()
}

fn millis(duration: Duration) -> String {
    itoa::Buffer::new().format(duration.as_millis()).to_owned()
}

/// Deletes the lease alone.
async fn revoke(servers: &Servers, key: &Key) -> RedisResult<()> {
    servers.run(key, || delete(key.lock())).await.map(drop)
}

/// What finds the keys of a type, and more. No part of a prefix means anything to a pattern.
fn pattern(prefix: &str, swept: Swept) -> String {
    match swept {
        Swept::Leases => format!("{{{prefix}*}}:lock"),
        Swept::Entries => format!("{prefix}*"),
    }
}

/// Whether a key has the prefix and an id: not those of a namespace that is called as an entity without one.
fn is_of_type(key: &[u8], prefix: &str, swept: Swept) -> bool {
    let key = match swept {
        Swept::Leases => key.strip_prefix(b"{").and_then(|key| key.strip_suffix(b"}:lock")),
        Swept::Entries => Some(key),
    };
    key.and_then(|key| key.strip_prefix(prefix.as_bytes())).is_some_and(|id| !id.contains(&b':'))
}

fn changed_meanwhile() -> StepError {
    let cause = "another server has taken over, or hash slots are moving".into();
    StepError::Failed { advice: "it is tried again", cause, answered: true }
}
