//! The Redis backend: the protocol's steps on one Redis or Valkey server.
//!
//! All steps but one share a pipelined connection that reconnects by itself. `update` needs WATCH, whose state belongs
//! to the connection: it has connections of its own (`redis/update.rs`). The driver's types stay in here.

mod connect;
mod script;
#[cfg_attr(not(feature = "tls"), path = "redis/without_tls.rs")]
mod tls;
mod update;

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, ServerErrorKind, Value};

pub(super) use self::connect::Address;
use self::connect::Shared;
use self::script::{ABANDON, CLEAR_LEASE, FILL, INVALIDATE, RENEW, Script};
pub(super) use self::tls::Tls;
use self::update::Updates;
use super::{Acquired, Cursor, Decide, Filled, Look, StepError, Steps, Swept, Token};
use crate::entry::Entry;
use crate::key::Key;
use crate::record::StoredField;

/// What PTTL reports of a key without a lifetime.
const NO_LIFETIME: i64 = -1;

pub(super) struct Redis {
    shared: Shared,
    updates: Updates,
}

impl Redis {
    /// Says that a step got no answer within its limit.
    pub(super) fn timed_out(&self, limit: Duration) {
        self.shared.timed_out(limit);
    }

    /// How many connections of updates are in use, and how many are idle.
    pub(super) fn update_connections(&self) -> (usize, usize) {
        self.updates.connections()
    }

    async fn run<R: FromRedisValue>(&self, command: &Cmd) -> RedisResult<R> {
        let mut connection = self.shared.connection();
        let reply = command.query_async(&mut connection.manager).await;
        self.shared.check(&connection, reply.as_ref().err());
        reply
    }

    /// Runs a command that may be carried out twice: a connection that was cut while idle is noticed by its first use.
    async fn run_idempotent<R: FromRedisValue>(&self, command: &Cmd) -> RedisResult<R> {
        match self.run(command).await {
            Err(error) if error.is_connection_dropped() => self.run(command).await,
            reply => reply,
        }
    }

    /// Runs the commands in one round trip, each with a result of its own.
    async fn run_all(&self, commands: &mut Pipeline) -> RedisResult<Vec<RedisResult<Value>>> {
        let mut connection = self.shared.connection();
        let replies = commands.ignore_errors().query_async(&mut connection.manager).await;
        let replies: Vec<RedisResult<Value>> =
            replies.inspect_err(|error| self.shared.check(&connection, Some(error)))?;
        self.shared.check(&connection, replies.iter().find_map(|reply| reply.as_ref().err()));
        Ok(replies)
    }

    async fn run_script(&self, script: &Script, keys: &[&str], args: &[&[u8]]) -> RedisResult<bool> {
        let reply = if script.is_idempotent {
            self.run_idempotent(&script.by_hash(keys, args)).await
        } else {
            self.run(&script.by_hash(keys, args)).await
        };
        match reply {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.run(&script.by_text(keys, args)).await
            }
            reply => reply,
        }
    }
}

impl Steps for Redis {
    async fn ping(&self) -> Result<(), StepError> {
        Ok(self.run(&redis::cmd("PING")).await?)
    }

    async fn read(&self, key: &Key) -> Result<Option<Entry>, StepError> {
        Ok(entry(self.run_idempotent(&hgetall(key)).await)?)
    }

    async fn acquire(&self, key: &Key, token: &Token, lease: Duration) -> Result<Acquired, StepError> {
        let lock = key.lock();
        loop {
            let mut commands = redis::pipe();
            commands.cmd("SET").arg(&lock).arg(&token.0).arg("NX").arg("GET").arg("PX").arg(millis(lease));
            commands.add_command(hgetall(key));
            commands.cmd("PTTL").arg(&lock);
            let [held, found, lease_left] = replies(self.run_all(&mut commands).await?)?;
            let lease_left = lease_left?;
            let (granted, is_lease) = match held {
                Ok(Value::Nil) => (true, true),
                Ok(Value::BulkString(holder)) => (holder == token.0.as_bytes(), lease_left != Value::Int(NO_LIFETIME)),
                Ok(_) => return Err(unexpected_reply().into()),
                Err(error) if is_wrong_type(&error) => (false, false),
                Err(error) => return Err(error.into()),
            };
            if !is_lease {
                // Nobody would ever release it.
                self.run_script(&CLEAR_LEASE, &[&lock], &[]).await?;
                continue;
            }
            let busy_for = if granted { None } else { remaining(&lease_left) };
            return Ok(Acquired { granted, entry: entry(found)?, busy_for });
        }
    }

    async fn renew(&self, key: &Key, token: &Token, lease: Duration) -> Result<bool, StepError> {
        let lease = millis(lease);
        Ok(self.run_script(&RENEW, &[&key.lock()], &[token.0.as_bytes(), lease.as_bytes()]).await?)
    }

    async fn fill(
        &self,
        key: &Key,
        token: &Token,
        fields: Vec<StoredField>,
        ttl: Duration,
    ) -> Result<Filled, StepError> {
        let ttl = millis(ttl);
        let mut args = vec![token.0.as_bytes(), ttl.as_bytes()];
        args.extend(fields.iter().flat_map(|(name, value)| [&**name, value.as_slice()]));
        let stored = self.run_script(&FILL, &[key.as_str(), &key.lock()], &args).await?;
        Ok(if stored { Filled::Accepted } else { Filled::Fenced })
    }

    async fn abandon(&self, key: &Key, token: &Token) -> Result<(), StepError> {
        // By text at once: on a server that is late, nobody would be there any more to answer "no such script".
        let command = ABANDON.by_text(&[&key.lock()], &[token.0.as_bytes()]);
        Ok(self.run_idempotent(&command).await?)
    }

    async fn invalidate(&self, key: &Key) -> Result<bool, StepError> {
        Ok(self.run_script(&INVALIDATE, &[key.as_str(), &key.lock()], &[]).await?)
    }

    async fn update(&self, key: &Key, decide: &mut Decide<'_>) -> Result<bool, StepError> {
        match self.updates.run(key, decide).await? {
            Some(applied) => Ok(applied),
            // Without memory for a transaction, deleting works all the same.
            None => self.invalidate(key).await.map(|_was_there| false),
        }
    }

    async fn look(&self, key: &Key) -> Result<Look, StepError> {
        let mut commands = redis::pipe();
        commands.add_command(hgetall(key));
        commands.cmd("PTTL").arg(key.as_str()).cmd("PTTL").arg(key.lock());
        let [found, ttl, lease_ttl] = replies(self.run_all(&mut commands).await?)?;
        Ok(Look { entry: entry(found)?, ttl: remaining(&ttl?), lease_ttl: remaining(&lease_ttl?) })
    }

    async fn sweep(&self, prefix: &str, swept: Swept, cursor: Cursor) -> Result<Cursor, StepError> {
        const KEYS_AT_A_TIME: u32 = 500;
        // No part of a prefix means anything to a pattern.
        let pattern = match swept {
            Swept::Leases => format!("{{{prefix}*}}:lock"),
            Swept::Entries => format!("{prefix}*"),
        };
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor.unwrap_or(0)).arg("MATCH").arg(pattern).arg("COUNT").arg(KEYS_AT_A_TIME);
        let (next, found): (u64, Vec<Vec<u8>>) = self.run_idempotent(&scan).await?;
        if !found.is_empty() {
            self.run_idempotent::<()>(redis::cmd("DEL").arg(found)).await?;
        }
        Ok((next != 0).then_some(next))
    }
}

#[cfg(feature = "__proof")]
impl super::rig::Bare for Redis {
    async fn put_entry(&self, key: &Key, fields: Vec<StoredField>, ttl: Duration) -> Result<(), StepError> {
        let mut commands = redis::pipe();
        let fields: Vec<_> = fields.iter().map(|(name, value)| (&**name, value.as_slice())).collect();
        commands.cmd("DEL").arg(key.as_str()).cmd("HSET").arg(key.as_str()).arg(fields);
        commands.cmd("PEXPIRE").arg(key.as_str()).arg(millis(ttl));
        let [_, set, _] = replies(self.run_all(commands.atomic()).await?)?;
        Ok(set.map(drop)?)
    }

    async fn delete_entry(&self, key: &Key) -> Result<bool, StepError> {
        Ok(self.run(redis::cmd("DEL").arg(key.as_str())).await?)
    }

    async fn delete_lease(&self, key: &Key) -> Result<(), StepError> {
        Ok(self.run(redis::cmd("DEL").arg(key.lock())).await?)
    }
}

fn hgetall(key: &Key) -> Cmd {
    let mut command = redis::cmd("HGETALL");
    command.arg(key.as_str());
    command
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// What HGETALL says is there: an empty hash is no entry, and an error about the type is an entry nobody can read.
fn entry(reply: RedisResult<Value>) -> RedisResult<Option<Entry>> {
    let fields = match reply {
        Ok(reply) => fields(reply)?,
        Err(error) if is_wrong_type(&error) => return Ok(Some(Entry::WrongType)),
        Err(error) => return Err(error),
    };
    Ok((!fields.is_empty()).then(|| Entry::Hash(Arc::new(fields))))
}

fn fields(reply: Value) -> RedisResult<Vec<StoredField>> {
    let pairs = reply.into_map_iter().map_err(|_| unexpected_reply())?;
    let field = |pair| match pair {
        (Value::BulkString(name), Value::BulkString(value)) => Ok((name.into(), value)),
        _ => Err(unexpected_reply()),
    };
    pairs.map(field).collect()
}

fn replies<const N: usize>(replies: Vec<RedisResult<Value>>) -> RedisResult<[RedisResult<Value>; N]> {
    replies.try_into().map_err(|_| unexpected_reply())
}

fn unexpected_reply() -> RedisError {
    (ErrorKind::UnexpectedReturnType, "the server's reply has another shape than expected").into()
}

/// Whether the server's ACL is in the way. Of a command in a script it says so in words alone.
fn is_forbidden(error: &RedisError) -> bool {
    const IN_SCRIPT: [&str; 2] = ["ACL failure in script", "The user executing the script can't"];
    error.code() == Some("NOPERM") || error.detail().is_some_and(|detail| IN_SCRIPT.iter().any(|s| detail.contains(s)))
}

/// Whether a server was there, and ended or garbled the conversation: so does one that expects TLS, or doesn't.
fn is_cut_off(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Parse || (error.is_connection_dropped() && !error.is_connection_refusal())
}

/// Whether the server doesn't know the command that begins RESP3; the driver takes notice of what old ones say alone.
fn knows_no_hello(error: &RedisError) -> bool {
    const UNKNOWN: &str = "unknown command 'HELLO'";
    error.kind() == ErrorKind::RESP3NotSupported || error.detail().is_some_and(|detail| detail.starts_with(UNKNOWN))
}

/// What the server says, without the arguments of a command that it doesn't know: HELLO's hold the password.
fn without_arguments(error: &RedisError) -> String {
    let mut text = error.to_string();
    if let Some(end) = text.find(", with args beginning with") {
        text.truncate(end);
    }
    text
}

fn is_wrong_type(error: &RedisError) -> bool {
    error.code() == Some("WRONGTYPE")
}

/// The lifetime that PTTL reports; `None` for a key that isn't there or has none.
fn remaining(pttl: &Value) -> Option<Duration> {
    match pttl {
        Value::Int(millis) => u64::try_from(*millis).ok().map(Duration::from_millis),
        _ => None,
    }
}

impl From<RedisError> for StepError {
    fn from(error: RedisError) -> Self {
        // A server that is loading, or has no primary, answers nothing else.
        let answered = !matches!(error.kind(), ErrorKind::Io | ErrorKind::AuthenticationFailed)
            && !matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "LOADING" | "MASTERDOWN" | "CLUSTERDOWN"));
        let advice = match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => {
                "put the right user and password into the URL, redis://user:password@host"
            }
            _ if is_forbidden(&error) => "allow the user these commands and keys in the server's ACL",
            (_, Some("READONLY")) => "connect to the primary, this is a replica",
            (_, Some("OOM")) => "raise the server's maxmemory, or set an eviction policy such as allkeys-lru",
            (_, Some("MOVED" | "ASK" | "CLUSTERDOWN" | "CROSSSLOT")) => {
                "this is a node of a cluster, which this release does not support: connect to a single server"
            }
            (_, Some("LOADING")) => "wait until the server has loaded its data",
            _ if knows_no_hello(&error) => "add ?protocol=resp2 to the URL",
            _ if is_cut_off(&error) => {
                "check that the server is up and the URL right, rediss:// for TLS and redis:// without"
            }
            (ErrorKind::Io, _) => "check that a server runs there and can be reached",
            _ => "see the cause",
        };
        let advice = tls::advice(&error).unwrap_or(advice);
        Self::Failed { advice, cause: without_arguments(&error).into(), answered }
    }
}
