//! Writes that count as applied only once replicas have them: the write, and then WAIT, over an exclusive connection. On the
//! shared one WAIT would hold up every read, and it counts its own connection's writes alone.

use std::time::Duration;

use redis::{RedisError, RedisResult};
use tokio::time::{Instant, sleep};

use super::errors::{connection_lost, is_dropped, is_elsewhere, is_of_replica, unexpected_reply};
use super::exclusive::Exclusive;
use super::resp::{Reply, command};
use super::topology::Destination;
use super::{Redis, millis};
use crate::backend::{StoreError, StoreResult, Token};
use crate::backoff::Backoff;
use crate::record::Key;

/// How many replicas are to have a write, and how long they may take.
#[derive(Debug, Clone, Copy)]
pub(in crate::backend) struct Replicas {
    pub(in crate::backend) count: u32,
    pub(in crate::backend) timeout: Duration,
}

impl Replicas {
    fn command(self) -> Vec<u8> {
        command(&[b"WAIT", self.count.to_string().as_bytes(), millis(self.timeout).as_bytes()])
    }

    /// Waits until they have what the connection has written. The server may take `limit` beside their time.
    pub(super) async fn wait(self, connection: &mut Exclusive, limit: Duration) -> StoreResult<()> {
        let replies = connection.exchange(limit + self.timeout, &[self.command()]).await?;
        self.check(replies.into_iter().next())
    }

    fn check(self, reply: Option<RedisResult<Reply>>) -> StoreResult<()> {
        let acknowledged = reply.unwrap_or_else(|| Err(unexpected_reply()))?.integer()?;
        let Self { count, timeout } = self;
        if acknowledged >= i64::from(count) {
            return Ok(());
        }
        let cause = format!("{acknowledged} of {count} replicas have acknowledged the write within {timeout:?}").into();
        let advice = "check that the replicas are up and keep up, or ask for fewer in acknowledged_by";
        Err(StoreError::Failed { advice, cause, answered: Some(true) })
    }
}

impl Redis {
    /// Deletes L, and then K, and waits until replicas have that; returns whether K was there.
    pub(super) async fn invalidate_at(&self, key: &Key, replicas: Replicas) -> StoreResult<bool> {
        let given_up = Instant::now() + self.operation_timeout + replicas.timeout;
        let (mut redirected, mut was_there, mut backoff) = (None, false, Backoff::between_attempts());
        loop {
            let destination = match redirected.take() {
                Some(redirected) => redirected,
                None => self.topology.destination(key).await?,
            };
            let error = match self.delete_at(key, &destination, replicas, &mut was_there).await {
                Ok(None) => return Ok(was_there),
                Ok(Some(error)) => error,
                Err(error) => {
                    self.topology.refresh();
                    return Err(error);
                }
            };
            redirected = self.topology.redirected(key, &destination, &error);
            if Instant::now() >= given_up {
                return Err(error.into());
            }
            if redirected.is_none() {
                sleep(backoff.next()).await;
            }
        }
    }

    /// `Some`: both have to be deleted again, at another server or over another connection.
    async fn delete_at(
        &self,
        key: &Key,
        destination: &Destination,
        replicas: Replicas,
        was_there: &mut bool,
    ) -> StoreResult<Option<RedisError>> {
        let server = &destination.server;
        let mut connection = match server.exclusives.take().await {
            Err(error) if is_dropped(&error) => return Ok(Some(error)),
            connection => connection?,
        };
        let (lease, entry) = (key.lock().as_bytes(), key.as_str().as_bytes());
        let mut commands = vec![
            // To delete what isn't there is no write, and on a connection that has written nothing WAIT doesn't wait: but the
            // deletion of an earlier attempt may have reached no replica. This always is one, and revokes a lease too.
            command(&[b"SET", lease, Token::new().0.as_bytes(), b"PX", b"1"]),
            command(&[b"DEL", lease]),
            command(&[b"DEL", entry]),
            replicas.command(),
        ];
        if destination.asking {
            commands = commands.into_iter().flat_map(|next| [command(&[b"ASKING"]), next]).collect();
        }
        let replies = match connection.exchange(self.operation_timeout + replicas.timeout, &commands).await {
            Ok(replies) if destination.asking => replies.into_iter().skip(1).step_by(2).collect(),
            Ok(replies) => replies,
            Err(error) if is_dropped(&error) => return Ok(Some(error)),
            Err(error) if error.is_timeout() && connection.was_idle => {
                server.exclusives.drop_idle();
                return Ok(Some(error));
            }
            Err(error) => return Err(error.into()),
        };
        let [set, lease, entry, wait] = <[_; 4]>::try_from(replies).map_err(|_| unexpected_reply())?;
        let errors = [&set, &lease, &entry].map(|reply| reply.as_ref().err());
        if errors.into_iter().flatten().any(is_of_replica) {
            server.shared.leave(&connection.epoch);
        }
        let elsewhere = errors.into_iter().flatten().find(|error| is_elsewhere(error)).cloned();
        if elsewhere.is_some() && lease.is_err() && entry.is_err() {
            return Ok(elsewhere);
        }
        // While a slot moves, one of the two may be deleted here, and both are at the other server once more.
        let is_deleted = |reply: &RedisResult<Reply>| {
            reply.as_ref().is_ok_and(|reply| reply.integer().is_ok_and(|count| count != 0))
        };
        *was_there |= is_deleted(&entry);
        let is_written = set.is_ok() || is_deleted(&lease) || is_deleted(&entry);
        if elsewhere.is_none() {
            lease?;
            entry?;
            if !is_written {
                // For lack of memory, for example: then nothing tells which replicas have an earlier deletion.
                set?;
            }
        }
        replicas.check(Some(wait))?;
        let epoch = connection.epoch.clone();
        server.exclusives.give_back(connection);
        if elsewhere.is_some() {
            return Ok(elsewhere);
        }
        Ok(if server.shared.is_still_at(&epoch).await { None } else { Some(connection_lost()) })
    }
}
