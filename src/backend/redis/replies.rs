//! Reading over the driver's connections: the commands, and what their replies mean.

use std::time::Duration;

use redis::{Cmd, RedisResult, Value};
use tokio::sync::oneshot;

use super::errors::{connection_lost, is_wrong_type, unexpected_reply};
use crate::backend::Selection;
use crate::entry::{Entry, Found, META};
use crate::key::Key;
use crate::record::{Hash, StoredField, Values};

/// The value of `~meta`, in a reply to those who read by names.
pub(super) const BESIDE_NAMES: usize = 1;

/// Begins a command, with room for so many arguments, of so many bytes in all.
pub(super) fn command(name: &str, arguments: usize, bytes: usize) -> Cmd {
    let mut command = Cmd::with_capacity(1 + arguments, name.len() + bytes);
    command.arg(name);
    command
}

pub(super) fn read_hash(key: &Key, selection: &Selection) -> Cmd {
    let key = key.as_str();
    match selection.names() {
        None => command("HGETALL", 1, key.len()).arg(key).take(),
        Some(names) => {
            let bytes = key.len() + names.iter().map(|name| name.len()).sum::<usize>() + META.len();
            command("HMGET", names.len() + 2, bytes).arg(key).arg(names).arg(META).take()
        }
    }
}

/// The two commands whose replies [`found`] takes. PTTL comes first: an entry that is filled between the two is taken to be
/// as old as the one before, and never the other way round.
pub(super) fn look(key: &Key, selection: &Selection) -> [Cmd; 2] {
    [pttl(key.as_str()), read_hash(key, selection)]
}

pub(super) fn pttl(key: &str) -> Cmd {
    command("PTTL", 1, key.len()).arg(key).take()
}

pub(super) fn found(
    left: RedisResult<Value>,
    reply: RedisResult<Value>,
    selection: &Selection,
) -> RedisResult<Option<Found>> {
    let left = remaining(&left?);
    Ok(entry(reply, selection)?.map(|entry| Found { entry, left }))
}

/// What the reply to [`read_hash`] says is there.
pub(super) fn entry(reply: RedisResult<Value>, selection: &Selection) -> RedisResult<Option<Entry>> {
    entry_by(reply, |reply| match selection.names() {
        Some(names) => selected(reply, names.len()),
        None => whole(reply),
    })
}

/// What a read's reply says is there: without a field there is no entry, and an error about the type is an entry nobody
/// can read.
pub(super) fn entry_by<R>(
    reply: RedisResult<R>,
    hash: impl FnOnce(R) -> RedisResult<Option<Hash>>,
) -> RedisResult<Option<Entry>> {
    match reply {
        Ok(reply) => Ok(hash(reply)?.map(Entry::Hash)),
        Err(error) if is_wrong_type(&error) => Ok(Some(Entry::WrongType)),
        Err(error) => Err(error),
    }
}

fn selected(reply: Value, names: usize) -> RedisResult<Option<Hash>> {
    let Value::Array(values) = reply else {
        return Err(unexpected_reply());
    };
    if values.len() != names + BESIDE_NAMES {
        return Err(unexpected_reply());
    }
    let value = |value| match value {
        Value::BulkString(value) => Ok(Some(value)),
        Value::Nil => Ok(None),
        _ => Err(unexpected_reply()),
    };
    let values = values.into_iter().map(value).collect::<RedisResult<Vec<_>>>()?;
    Ok(Hash::selected(values, Values::Owned))
}

fn whole(reply: Value) -> RedisResult<Option<Hash>> {
    let pairs = reply.into_map_iter().map_err(|_| unexpected_reply())?;
    let field = |pair| match pair {
        (Value::BulkString(name), Value::BulkString(value)) => Ok((name.into(), value)),
        _ => Err(unexpected_reply()),
    };
    let fields = pairs.map(field).collect::<RedisResult<Vec<StoredField>>>()?;
    Ok((!fields.is_empty()).then_some(Hash::Owned(fields)))
}

/// Waits for the replies to commands that were sent together, unless their connection is lost.
pub(super) async fn received<R, const N: usize>(
    replies: [oneshot::Receiver<RedisResult<R>>; N],
) -> RedisResult<[RedisResult<R>; N]> {
    let mut received = [const { None }; N];
    for (received, reply) in received.iter_mut().zip(replies) {
        *received = Some(reply.await.unwrap_or_else(|_task_ended| Err(connection_lost())));
    }
    let received = received.map(|reply| reply.unwrap_or_else(|| Err(connection_lost())));
    match received.iter().find_map(|reply| reply.as_ref().err().filter(|error| error.is_io_error())) {
        Some(lost) => Err(lost.clone()),
        None => Ok(received),
    }
}

/// Whether this reply to ROLE is a primary's.
pub(super) fn is_primary(role: &[Value]) -> bool {
    matches!(role.first(), Some(Value::BulkString(role)) if role == b"master")
}

/// The lifetime that PTTL reports; `None` for a key that isn't there or has none.
pub(super) fn remaining(pttl: &Value) -> Option<Duration> {
    match pttl {
        Value::Int(millis) => u64::try_from(*millis).ok().map(Duration::from_millis),
        _ => None,
    }
}
