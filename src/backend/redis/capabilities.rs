//! What the server has to answer, asked once by `connect`: one error lists all that it refuses.
//!
//! Only refusals of a command count. Whether the user may use the keys of a namespace isn't known here; and a server that is full,
//! or loading, or can't be reached just now, says nothing about its commands.

use std::time::Duration;

use redis::{RedisError, RedisResult};

use super::Redis;
use super::errors::is_about_a_key;
use super::errors::is_without_transactions;
use super::exclusive::{Exclusive, Exclusives};
use super::resp::{Reply, command, encode};
use super::shared::Request;
use super::without_scripts::{encode_probe, refusal};
use crate::backend::{Forbidden, StoreError, StoreResult};
use crate::record::{Key, KeySpace, META, Schema};

/// A key that no record has, since no entity has this name.
fn probe_key(key_prefix: &str) -> Option<Key> {
    KeySpace::new(key_prefix, None, &Schema::new("~probe")).key::<String>(&"connect").ok()
}

/// How many commands [`Redis::check`] sends over the shared connection. The last two are the probe for scripts.
const COMMANDS: usize = 13;

impl Redis {
    /// Fails with all that the library needs and the server refuses. Nothing is left there.
    pub(in crate::backend) async fn check(&self, key_prefix: &str, limit: Duration) -> StoreResult<()> {
        let Some(key) = probe_key(key_prefix) else { return Ok(()) };
        let (entry, lease) = (key.as_str().as_bytes(), key.lock().as_bytes());
        // HSET is the only one that writes. DEL undoes that, and if it is refused, PEXPIRE.
        let commands: [&[&[u8]]; COMMANDS - 2] = [
            &[b"PING"],
            &[b"HMGET", entry, META],
            &[b"HGETALL", entry],
            &[b"EXISTS", entry],
            &[b"PTTL", entry],
            &[b"GET", lease],
            &[b"SET", lease, b"", b"XX", b"PX", b"1"],
            &[b"HSET", entry, META, b""],
            &[b"PEXPIRE", entry, b"100"],
            &[b"HDEL", entry, b"none"],
            &[b"DEL", entry],
        ];
        let encode = |at: usize, out: &mut Vec<u8>| match commands.get(at) {
            Some(command) => encode(out, command),
            None => encode_probe(at - commands.len(), out, &key),
        };
        let sent: RedisResult<[RedisResult<Reply>; COMMANDS]> = self.send(&key, &Request::new(limit, &encode)).await;
        let Ok(replies) = sent else { return Ok(()) };
        let (replies, of_scripts) = replies.split_at(commands.len());
        if is_state(&replies[1..]) {
            return Ok(());
        }
        let refused = commands.iter().zip(replies).filter_map(|(command, reply)| {
            let name = String::from_utf8_lossy(command[0]);
            refusal([reply]).map(|error| shown(&name, error))
        });
        let mut refused: Vec<_> = refused.collect();
        if let Some(of_scripts) = refusal(of_scripts) {
            match self.refuses_transactions(&key, limit).await {
                Some(error) => {
                    let both = format!("both {} and {}", shown("EVAL", of_scripts), shown("WATCH", &error));
                    refused.push(format!("{both}, of which one is needed"));
                }
                None => self.scripts.note_missing(of_scripts),
            }
        }
        if self.acknowledged_by.is_some() {
            refused.extend(self.refuses_wait(&key, limit).await.map(|error| shown("WAIT", &error)));
        }
        let Some((last, others)) = refused.split_last() else { return Ok(()) };
        let all = if others.is_empty() { last.clone() } else { format!("{}, and {last}", others.join(", ")) };
        Err(StoreError::Failed {
            advice: "allow the user these commands in the server's ACL, or connect to a server that has them",
            cause: Forbidden(format!("the server refuses {all}")).into(),
            answered: Some(true),
        })
    }

    async fn refuses_transactions(&self, key: &Key, limit: Duration) -> Option<RedisError> {
        let destination = self.topology.destination(key).await.ok()?;
        let exclusives = &destination.server.exclusives;
        let connection = match exclusives.take_to_watch(key, limit).await {
            Err(error) if is_without_transactions(&error) => return Some(error),
            connection => connection.ok()?,
        };
        let lease = key.lock().as_bytes();
        let commands = [command(&[b"WATCH", lease]), command(&[b"MULTI"]), command(&[b"EXEC"])];
        refused_over(exclusives, connection, limit, &commands).await
    }

    async fn refuses_wait(&self, key: &Key, limit: Duration) -> Option<RedisError> {
        let destination = self.topology.destination(key).await.ok()?;
        let exclusives = &destination.server.exclusives;
        let connection = exclusives.take().await.ok()?;
        refused_over(exclusives, connection, limit, &[command(&[b"WAIT", b"0", b"1"])]).await
    }
}

/// Sends commands over this connection, and returns the error by which one of them is refused.
async fn refused_over(
    exclusives: &Exclusives,
    mut connection: Exclusive,
    limit: Duration,
    commands: &[Vec<u8>],
) -> Option<RedisError> {
    let replies = connection.exchange(limit, commands).await.ok()?;
    // Nothing was to be carried out, so EXECABORT is about EXEC itself.
    let is_aborted = |error: &&RedisError| error.code() == Some("EXECABORT");
    let aborted = replies.iter().filter_map(|reply| reply.as_ref().err()).find(is_aborted);
    let refusal = refusal(&replies).or(aborted).cloned();
    if refusal.is_none() {
        exclusives.give_back(connection);
    }
    refusal
}

/// Whether all commands on keys fail alike: the server behind a proxy is down, and it is no matter of commands.
fn is_state(replies: &[RedisResult<Reply>]) -> bool {
    let errors: Vec<_> = replies.iter().filter_map(|reply| reply.as_ref().err()).collect();
    let is_alike = |error: &&RedisError| !is_about_a_key(error) && error.to_string() == errors[0].to_string();
    errors.len() == replies.len() && errors.iter().all(is_alike)
}

/// A command, and how it was refused.
fn shown(command: &str, error: &RedisError) -> String {
    let Some(code) = error.code() else { return format!("{command} ({error})") };
    let detail = error.detail().unwrap_or_default();
    // The server repeats the arguments of a command that it doesn't know.
    let detail = detail.split(", with args beginning with").next().unwrap_or_default();
    format!("{command} ({})", format!("{code} {detail}").trim_end())
}
