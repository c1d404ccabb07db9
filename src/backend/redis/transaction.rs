//! A transaction: WATCH and a look, then MULTI .. EXEC, over an exclusive connection.
//!
//! MULTI goes out with the look, before anything that writes. A server that refuses it would carry out the commands after it one
//! by one, with others in between.

use std::time::Duration;

use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};

use super::errors::{
    connection_lost, has_no_connection, is_dropped, is_elsewhere, is_logged_off, is_of_replica, is_refused,
    is_without_transactions, is_wrong_type, unexpected_reply,
};
use super::exclusive::Exclusive;
use super::resp::{Reply, command};
use super::topology::Destination;
use crate::record::Key;

/// Between a look and its EXEC.
pub(super) struct Transaction {
    pub(super) connection: Exclusive,
    pub(super) destination: Destination,
}

/// Why a transaction was not carried out, or may not have been.
pub(super) enum Unfinished {
    /// The connection was lost before anything was written: another may be better.
    Lost { was_idle: bool },
    /// Another server has a key. Nothing was written.
    Elsewhere(RedisError),
    /// The server refuses transactions, or another connection. Nothing was written.
    Refused(RedisError),
    /// After an error of the network, EXEC may be carried out late.
    Failed(RedisError),
}

impl Unfinished {
    /// By the server's answer.
    fn of(error: RedisError) -> Self {
        if is_elsewhere(&error) {
            Self::Elsewhere(error)
        } else if is_refused(&error) {
            Self::Refused(error)
        } else {
            Self::Failed(error)
        }
    }

    pub(super) fn into_error(self) -> RedisError {
        match self {
            Self::Lost { .. } => connection_lost(),
            Self::Elsewhere(error) | Self::Refused(error) | Self::Failed(error) => error,
        }
    }
}

impl Transaction {
    /// Watches keys of this record, and looks: returns a reply to each of the commands in `looks`. A key of the wrong type is no error here.
    pub(super) async fn begin(
        destination: &Destination,
        limit: Duration,
        key: &Key,
        watched: &[&[u8]],
        looks: Vec<Vec<u8>>,
    ) -> Result<(Self, Vec<RedisResult<Reply>>), Unfinished> {
        let exclusives = &destination.server.exclusives;
        let mut connection = exclusives.take_to_watch(key, limit).await.map_err(|error| match error {
            error if is_dropped(&error) => Unfinished::Lost { was_idle: false },
            error if has_no_connection(&error) || is_without_transactions(&error) => Unfinished::Refused(error),
            error => Unfinished::of(error),
        })?;
        let was_idle = connection.was_idle;
        let watch: Vec<_> = [&b"WATCH"[..]].into_iter().chain(watched.iter().copied()).collect();
        let (mut commands, count) = (vec![command(&watch)], looks.len());
        commands.extend(looks);
        commands.push(command(&[b"MULTI"]));
        if destination.asking {
            // ASKING before MULTI holds until EXEC.
            commands = commands.into_iter().flat_map(|next| [command(&[b"ASKING"]), next]).collect();
        }
        let replies: Vec<_> = match connection.exchange(limit, &commands).await {
            Ok(replies) if destination.asking => replies.into_iter().skip(1).step_by(2).collect(),
            Ok(replies) => replies,
            // A connection that was cut while idle, silently or not, is no reason to fail.
            Err(error) if is_dropped(&error) => return Err(Unfinished::Lost { was_idle }),
            Err(error) if error.is_timeout() && was_idle => {
                exclusives.drop_idle();
                return Err(Unfinished::Lost { was_idle });
            }
            Err(error) => return Err(Unfinished::of(error)),
        };
        // The server has logged it off while it was idle.
        if was_idle && matches!(&replies[..], [Err(error), ..] if is_logged_off(error)) {
            return Err(Unfinished::Lost { was_idle });
        }
        let errors = || replies.iter().filter_map(|reply| reply.as_ref().err()).filter(|error| !is_wrong_type(error));
        if let Some(error) = errors().find(|error| is_elsewhere(error)).or_else(|| errors().next()) {
            return Err(Unfinished::of(error.clone()));
        }
        let looked = replies.into_iter().skip(1).take(count).collect();
        Ok((Self { connection, destination: destination.clone() }, looked))
    }

    /// Carries the commands out, unless a watched key has changed; returns whether it has not.
    pub(super) async fn end(&mut self, limit: Duration, mut commands: Vec<Vec<u8>>) -> Result<bool, Unfinished> {
        commands.push(command(&[b"EXEC"]));
        let replies = self.connection.exchange(limit, &commands).await.map_err(Unfinished::Failed)?;
        // EXEC's error only says that a command before it was refused. That command's error says why.
        let first = replies.iter().find_map(|reply| reply.as_ref().err()).cloned();
        let end = replies.into_iter().last().unwrap_or_else(|| Err(unexpected_reply()));
        match (end, first) {
            (Ok(end), _) if end.is_nil() => Ok(false),
            (Ok(end), _) => match end.array().map_err(Unfinished::Failed)?.into_iter().find_map(RedisResult::err) {
                None => Ok(true),
                Some(error) => Err(Unfinished::of(error)),
            },
            (Err(_), Some(error)) if is_elsewhere(&error) => Err(Unfinished::Elsewhere(error)),
            (Err(_), Some(error)) if is_of_replica(&error) => {
                self.destination.server.shared.leave(&self.connection.epoch);
                Err(Unfinished::Failed(error))
            }
            // For lack of memory, for example.
            (Err(end), Some(error)) if end.kind() == ErrorKind::Server(ServerErrorKind::ExecAbort) => {
                Err(Unfinished::Refused(error))
            }
            (Err(end), _) => Err(Unfinished::of(end)),
        }
    }

    /// Gives the connection back. Only after [`end`](Self::end), and if that was no error.
    pub(super) fn give_back(self) {
        self.destination.server.exclusives.give_back(self.connection);
    }
}
