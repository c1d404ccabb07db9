//! The protocol's steps on a Redis or Valkey server, or on a cluster of them: which commands each step sends, and what the
//! replies mean.
//!
//! `topology` picks the server that has a key, and `shared` is the connection to one server that all steps but updates use.
//! Transactions and trackers have connections of their own: WATCH and invalidation messages belong to a socket.

mod acknowledged;
mod address;
mod capabilities;
mod connect;
mod errors;
mod exclusive;
mod renewal;
mod resp;
mod script;
mod sentinel;
mod shared;
mod slots;
mod sweep;
#[cfg_attr(not(feature = "tls"), path = "redis/without_tls.rs")]
mod tls;
mod topology;
mod tracker;
mod transaction;
mod update;
mod without_scripts;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use redis::RedisResult;
use tokio::time::Instant;

pub(super) use self::acknowledged::Replicas;
pub(super) use self::address::{ConnectOptions, MapAddress, Servers};
use self::errors::{is_refused, is_worth_another_attempt, is_wrong_type, not_answered, unexpected_reply};
use self::resp::{Reply, encode, encode_read, entry};
use self::script::{ABANDON, FILL, RENEW, REPLACE, TOUCH, encode_call};
use self::shared::{Encode, Request, Shared};
pub(super) use self::sweep::Restarted;
pub(super) use self::tls::Tls;
pub(super) use self::topology::LastSeen;
use self::topology::{Topology, is_sent_elsewhere};
pub(super) use self::tracker::track;
use self::update::{Queues, Update};
use self::without_scripts::Scripts;
use super::builder::Settings;
use super::call::Breaker;
use super::deadline::within;
use super::{
    Acquired, Each, EntryAndLease, Filled, Held, KeyKind, Mark, Store, StoreResult, StoreUpdate, Token, Touched,
};
use crate::record::{ALL, Found, Key, Meta, Selection, StoredField};

/// What has another server now.
#[derive(Clone, Copy)]
pub(super) enum TakenOver<'a> {
    /// All keys of the server that this connection leads to.
    Server(&'a Arc<Shared>),
    Slots(&'a HashSet<u16>),
}

/// Pause before a step on two keys is retried while their hash slot is migrating, so that they may be at two servers.
const MIGRATION_PAUSE: Duration = Duration::from_millis(5);

pub(super) struct Redis {
    pub(super) topology: Arc<Topology>,
    queues: Queues,
    scripts: Scripts,
    operation_timeout: Duration,
    acknowledged_by: Option<Replicas>,
}

impl Redis {
    /// Prepares the connections to these servers; none is made yet.
    pub(super) fn new(servers: Servers, settings: Settings) -> Self {
        let Settings { operation_timeout, acknowledged_by, .. } = settings;
        let topology = Arc::new(Topology::new(servers, settings));
        Self { topology, queues: Queues::new(), scripts: Scripts::default(), operation_timeout, acknowledged_by }
    }

    /// How many exclusive connections are in use, and how many are idle, over all servers.
    pub(super) fn update_connections(&self) -> (usize, usize) {
        let servers = self.topology.slots.read().primaries();
        let counts = servers.iter().map(|server| server.exclusives.in_use_and_idle());
        counts.fold((0, 0), |all, here| (all.0 + here.0, all.1 + here.1))
    }

    /// The breaker of the key's server, in a cluster. A single server has the backend's.
    pub(super) fn breaker(&self, key: &Key) -> Option<Arc<Breaker>> {
        if self.topology.only.is_some() { None } else { self.topology.breaker(key) }
    }

    pub(super) fn changes(&self) -> Arc<AtomicU64> {
        self.topology.changes.clone()
    }

    /// Runs commands that may be carried out twice on the key's server.
    async fn run<const N: usize>(&self, key: &Key, encode: &Encode<'_>) -> RedisResult<[RedisResult<Reply>; N]> {
        self.send(key, &self.request(encode)).await
    }

    /// Commands that may be carried out twice.
    fn request<'a>(&self, encode: &'a Encode<'a>) -> Request<'a> {
        Request::new(self.operation_timeout, encode)
    }

    /// Runs commands on the key's server in one round trip, each with a result of its own.
    async fn send<const N: usize>(&self, key: &Key, request: &Request<'_>) -> RedisResult<[RedisResult<Reply>; N]> {
        let topology = &self.topology;
        let of_cluster;
        let server = match &topology.only {
            Some(server) => server,
            None => {
                // Rare parts are boxed, here and below, so that the future of a hit stays small.
                of_cluster = match topology.owner(key) {
                    Some(owner) => owner,
                    None => Box::pin(topology.destination(key)).await?.server,
                };
                &of_cluster
            }
        };
        let replies = server.shared.run(request).await;
        match &replies {
            Err(error) => topology.refresh_after(error),
            Ok(replies) if topology.only.is_some() || !replies.iter().any(is_sent_elsewhere) => {}
            Ok(_) => return Box::pin(topology.follow(key, request, replies?)).await,
        }
        replies
    }

    /// Reads the token at L, if L is a string, and what is left of both keys. Reads K only if it exists.
    async fn look_with_holder(&self, key: &Key, is_there: bool) -> RedisResult<(Option<Bytes>, EntryAndLease)> {
        let commands = |at: usize, out: &mut Vec<u8>| match at {
            0 => encode(out, &[b"GET", key.lock().as_bytes()]),
            1 => encode(out, &[b"PTTL", key.lock().as_bytes()]),
            2 => encode(out, &[b"PTTL", key.as_str().as_bytes()]),
            _ => encode_read(out, key, &ALL),
        };
        let (get, lease_ttl, found) = if is_there {
            let [get, lease_ttl, left, read] = self.run(key, &commands).await?;
            (get, lease_ttl, found(left?.remaining(), read, &ALL)?)
        } else {
            let [get, lease_ttl] = self.run(key, &commands).await?;
            (get, lease_ttl, None)
        };
        let holder = match get {
            Err(error) if is_wrong_type(&error) => None,
            get => get?.bytes()?,
        };
        Ok((holder, EntryAndLease { found, lease_ttl: lease_ttl?.remaining() }))
    }

    /// Sets L to `to` for `ttl`, if it is `from`; returns whether it was.
    async fn replace(&self, key: &Key, from: &Token, to: &Token, ttl: Duration) -> RedisResult<bool> {
        let ttl = millis(ttl);
        let args = [from.0.as_bytes(), to.0.as_bytes(), ttl.as_bytes()];
        Ok(self.run_script(&REPLACE, key, &[key.lock()], &args).await? != 0)
    }
}

impl Store for Redis {
    async fn ping(&self, key: Option<&Key>, limit: Duration) -> StoreResult<()> {
        let topology = &self.topology;
        let server = match (&topology.only, key) {
            (Some(server), _) => server.clone(),
            (None, Some(key)) => topology.destination(key).await?.server,
            (None, None) => {
                let fetched = within(limit, topology.fetch_slots()).await;
                return Ok(fetched.unwrap_or_else(|| Err(not_answered()))?);
            }
        };
        server.shared.ask(limit, &[b"PING"]).await.inspect_err(|error| topology.refresh_after(error))?;
        Ok(())
    }

    async fn read(&self, key: &Key, selection: &Selection, with_ttl: bool) -> StoreResult<Option<Found>> {
        if !with_ttl {
            let [read] = self.run(key, &|_, out| encode_read(out, key, selection)).await?;
            return Ok(found(None, read, selection)?);
        }
        // PTTL first: if the entry is replaced between the two commands, the new one is taken to be as old as the one before,
        // which costs another load. In the other order, an old entry would be taken to be as young as the new one.
        let commands = |at: usize, out: &mut Vec<u8>| match at {
            0 => encode(out, &[b"PTTL", key.as_str().as_bytes()]),
            _ => encode_read(out, key, selection),
        };
        let [left, read] = self.run(key, &commands).await?;
        Ok(found(left?.remaining(), read, selection)?)
    }

    async fn read_many(
        &self,
        keys: &[&Key],
        selection: &Selection,
        with_ttl: bool,
        each: &mut Each<'_>,
    ) -> StoreResult<()> {
        let Some(first) = keys.first() else { return Ok(()) };
        let per_key = if with_ttl { 2 } else { 1 };
        let commands = |at: usize, out: &mut Vec<u8>| {
            let key = keys[at / per_key];
            if with_ttl && at.is_multiple_of(per_key) {
                encode(out, &[b"PTTL", key.as_str().as_bytes()]);
            } else {
                encode_read(out, key, selection);
            }
        };
        // A key's two commands go out together, and are overdue together: a key whose PTTL got no reply gets no entry either.
        let mut left = Some(None);
        let take = |at: usize, reply: RedisResult<Reply>| {
            if with_ttl && at.is_multiple_of(per_key) {
                left = reply.ok().map(|left| left.remaining());
            } else if let (Some(left), Ok(entry)) = (left, entry(reply, selection)) {
                each(at / per_key, entry.map(|entry| Found { entry, left }));
            }
        };
        let server = self.topology.destination(first).await?.server;
        match server.shared.run_many(&self.request(&commands), keys.len(), per_key, take).await {
            Err(error) if is_worth_another_attempt(&error) => Ok(()),
            read => Ok(read.inspect_err(|error| self.topology.refresh_after(error))?),
        }
    }

    async fn acquire(&self, key: &Key, token: &mut Token, lease_for: Duration) -> StoreResult<Acquired> {
        let (lock, lease_millis) = (key.lock().as_bytes(), millis(lease_for));
        let began = Instant::now();
        loop {
            let set_and_look = {
                let token = token.0.as_bytes();
                let commands = |at: usize, out: &mut Vec<u8>| match at {
                    0 => encode(out, &[b"SET", lock, token, b"NX", b"PX", lease_millis.as_bytes()]),
                    _ => encode(out, &[b"EXISTS", key.as_str().as_bytes()]),
                };
                self.send(key, &Request { attempts: 1, ..self.request(&commands) }).await
            };
            let [set, is_there] = match set_and_look {
                Err(error) if is_worth_another_attempt(&error) && began.elapsed() < self.operation_timeout => {
                    // The lost SET may have been carried out, or may be later. Abandon its token and take a new one: with the same
                    // token, two grants could not be told apart, and a load under the first could fill under the second.
                    self.abandon(key, token).boxed().await?;
                    *token = Token::new();
                    continue;
                }
                replies => replies?,
            };
            let set = set?;
            if !set.is_ok() && !set.is_nil() {
                return Err(unexpected_reply().into());
            }
            let is_there = is_there?.integer()? != 0;
            if set.is_ok() && !is_there {
                return Ok(Acquired { granted: true, found: None, held: None });
            }
            // From here on boxed: the first load of a record doesn't get here, and its future stays small.
            let (holder, EntryAndLease { found, lease_ttl }) = self.look_with_holder(key, is_there).boxed().await?;
            if holder.as_deref() == Some(token.0.as_bytes()) {
                return Ok(Acquired { granted: true, found, held: None });
            }
            let (Some(holder), Some(left)) = (holder, lease_ttl) else {
                // The lease has just ended, or it is no lease and would stay for ever.
                self.clear_lease(key).boxed().await?;
                continue;
            };
            let by = Token(String::from_utf8_lossy(&holder).into_owned());
            return Ok(Acquired { granted: false, found, held: Some(Held { by, left }) });
        }
    }

    async fn take_over(&self, key: &Key, mark: Mark, token: &Token, lease: Duration) -> StoreResult<Acquired> {
        let granted = self.replace(key, &Token::of(mark), token, lease).await?;
        let found = if granted { self.read(key, &ALL, true).await? } else { None };
        Ok(Acquired { granted, found, held: None })
    }

    async fn renew(&self, key: &Key, token: &Token, lease: Duration) -> StoreResult<bool> {
        let lease = millis(lease);
        Ok(self.run_script(&RENEW, key, &[key.lock()], &[token.0.as_bytes(), lease.as_bytes()]).await? != 0)
    }

    async fn fill(&self, key: &Key, token: &Token, fields: Vec<StoredField>, ttl: Duration) -> StoreResult<Filled> {
        let (ttl, mark) = (millis(ttl), Token::of(Mark::Unstored));
        let mut args = Vec::with_capacity(3 + 2 * fields.len());
        args.extend([token.0.as_bytes(), ttl.as_bytes()]);
        args.extend(fields.iter().flat_map(|(name, value)| [&**name, value.as_slice()]));
        if fields.is_empty() {
            args.push(mark.0.as_bytes());
        }
        let filled = self.run_on_entry(&FILL, key, &args).await?;
        Ok(if filled == 0 { Filled::Fenced } else { Filled::Accepted })
    }

    async fn touch(&self, key: &Key, token: &Token, meta: Option<Meta>, ttl: Duration) -> StoreResult<Touched> {
        let (ttl, meta) = (millis(ttl), meta.map(|meta| meta.text().unwrap_or_default()));
        let mut args = vec![token.0.as_bytes(), ttl.as_bytes()];
        args.extend(meta.as_ref().map(String::as_bytes));
        Ok(match self.run_on_entry(&TOUCH, key, &args).await? {
            0 => Touched::Fenced,
            1 => Touched::Accepted,
            _ => Touched::Gone,
        })
    }

    async fn abandon(&self, key: &Key, token: &Token) -> StoreResult<()> {
        if self.scripts.are_missing() {
            return self.abandon_without_script(key, token).boxed().await;
        }
        // By text at once: if the server is late, the caller has gone by the time that "no such script" would come back, and
        // nobody would send the text.
        let command =
            |_: usize, out: &mut Vec<u8>| encode_call(out, b"EVAL", ABANDON.text, &[key.lock()], &[token.0.as_bytes()]);
        let [abandoned] = self.run(key, &command).await?;
        match abandoned {
            Err(error) if is_refused(&error) => {
                self.has_no_scripts(key).boxed().await;
                self.abandon_without_script(key, token).boxed().await
            }
            abandoned => {
                abandoned?;
                Ok(())
            }
        }
    }

    async fn mark(&self, key: &Key, token: &Token, mark: Mark, ttl: Duration) -> StoreResult<()> {
        self.replace(key, token, &Token::of(mark), ttl).await?;
        Ok(())
    }

    async fn invalidate(&self, key: &Key) -> StoreResult<bool> {
        if let Some(replicas) = self.acknowledged_by {
            return self.invalidate_at(key, replicas).boxed().await;
        }
        // L before K, also when they are sent again: in the other order a load from before could fill between the two.
        let commands = |at: usize, out: &mut Vec<u8>| match at {
            0 => encode(out, &[b"DEL", key.lock().as_bytes()]),
            _ => encode(out, &[b"DEL", key.as_str().as_bytes()]),
        };
        let [lease, entry] = self.send(key, &Request { is_write: true, ..self.request(&commands) }).await?;
        lease?;
        Ok(entry?.integer()? != 0)
    }

    async fn delete(&self, key: &Key, kind: KeyKind) -> StoreResult<bool> {
        let name = match kind {
            KeyKind::Lease => key.lock(),
            KeyKind::Entry => key.as_str(),
        };
        let [deleted] = self.run(key, &|_, out| encode(out, &[b"DEL", name.as_bytes()])).await?;
        Ok(deleted?.integer()? != 0)
    }

    fn update<'a>(&'a self, key: &'a Key, selection: &'a Selection) -> Box<dyn StoreUpdate + 'a> {
        Box::new(Update::new(self, key, selection))
    }

    async fn look(&self, key: &Key) -> StoreResult<EntryAndLease> {
        let commands = |at: usize, out: &mut Vec<u8>| match at {
            0 => encode(out, &[b"PTTL", key.as_str().as_bytes()]),
            1 => encode_read(out, key, &ALL),
            2 => encode(out, &[b"GET", key.lock().as_bytes()]),
            _ => encode(out, &[b"PTTL", key.lock().as_bytes()]),
        };
        let [left, read, holder, lease_ttl] = self.run(key, &commands).await?;
        let is_unstored = holder.is_ok_and(|holder| {
            holder.bytes().is_ok_and(|text| text.as_deref() == Some(Token::of(Mark::Unstored).0.as_bytes()))
        });
        let lease_ttl = lease_ttl?.remaining().filter(|_| !is_unstored);
        Ok(EntryAndLease { found: found(left?.remaining(), read, &ALL)?, lease_ttl })
    }

    async fn delete_prefix(&self, prefix: &str, kind: KeyKind) -> StoreResult<u64> {
        self.sweep(prefix, kind).await
    }
}

fn found(left: Option<Duration>, read: RedisResult<Reply>, selection: &Selection) -> RedisResult<Option<Found>> {
    Ok(entry(read, selection)?.map(|entry| Found { entry, left }))
}

fn millis(duration: Duration) -> String {
    itoa::Buffer::new().format(duration.as_millis()).to_owned()
}
