//! Servers without scripts: their ACL forbids EVAL, they renamed it, or they are proxies and look-alikes that don't have it.
//!
//! Each script is here once more as a transaction: look at the keys under WATCH, decide, write by MULTI .. EXEC. That is the same
//! compare-and-set of L, since EXEC does nothing if L was touched after the look. That a server has no scripts shows when it
//! refuses a call, in whatever words, and then a script that does nothing too.

use std::time::Duration;

use parking_lot::Mutex;
use redis::{ErrorKind, RedisError, RedisResult};
use tokio::time::{Instant, sleep};

use super::Redis;
use super::errors::{is_about_a_key, is_dropped, is_refused, is_wrong_type, unexpected_reply, without_arguments};
use super::resp::{Reply, command, encode};
use super::script::{ABANDON, CLEAR_LEASE, Script, Step, encode_call};
use super::topology::Destination;
use super::transaction::{Transaction, Unfinished};
use crate::backend::{KeyKind, Store, StoreResult, Token};
use crate::backoff::Backoff;
use crate::record::{Key, META};

/// After this time a server without scripts is tried again: the permission may have been granted.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// So many new connections in a row that are lost with their first WATCH: the server hangs up on what it doesn't know.
pub(super) const MOST_HANG_UPS: u32 = 3;

/// Whether a backend's servers have scripts.
#[derive(Default)]
pub(super) struct Scripts {
    /// When they were last found to have none.
    missing_since: Mutex<Option<Instant>>,
}

impl Scripts {
    pub(super) fn are_missing(&self) -> bool {
        self.missing_since.lock().is_some_and(|since| since.elapsed() < ASK_AGAIN)
    }

    /// Notes that there are none, which is logged once.
    pub(super) fn note_missing(&self, error: &RedisError) {
        if self.missing_since.lock().replace(Instant::now()).is_none() {
            let error = without_arguments(error);
            tracing::warn!(error, "the server refuses scripts: transactions take their place");
        }
    }
}

/// A script that does nothing.
const NOTHING: &str = "return 1";

/// Appends the probe's two calls: the hash is that of the text, which is known once the first call was carried out.
pub(super) fn encode_probe(at: usize, out: &mut Vec<u8>, key: &Key) {
    let hash = redis::Script::new(NOTHING);
    match at {
        0 => encode_call(out, b"EVAL", NOTHING, &[key.lock()], &[]),
        _ => encode_call(out, b"EVALSHA", hash.get_hash(), &[key.lock()], &[]),
    }
}

/// The error by which a server has refused one of the probe's calls.
pub(super) fn refusal<'a>(replies: impl IntoIterator<Item = &'a RedisResult<Reply>>) -> Option<&'a RedisError> {
    let mut errors = replies.into_iter().filter_map(|reply| reply.as_ref().err());
    errors.find(|error| is_refused(error) && !is_about_a_key(error))
}

impl Redis {
    /// Whether the server refuses scripts altogether, and not what one of them does.
    pub(super) async fn has_no_scripts(&self, key: &Key) -> bool {
        let probe = |at: usize, out: &mut Vec<u8>| match at {
            0 => encode(out, &[b"GET", key.lock().as_bytes()]),
            _ => encode_probe(at - 1, out, key),
        };
        let probed: RedisResult<[_; 3]> = self.run(key, &probe).await;
        // A proxy whose server is down for a moment refuses every command, in words of its own.
        let Ok([Ok(_), replies @ ..]) = probed else { return false };
        let refusal = refusal(&replies);
        refusal.inspect(|error| self.scripts.note_missing(error)).is_some()
    }

    /// Carries out a script's step as a transaction; returns what the script would reply.
    pub(super) async fn transact(&self, script: &Script, key: &Key, keys: &[&str], args: &[&[u8]]) -> RedisResult<i64> {
        let keys: Vec<_> = keys.iter().map(|key| key.as_bytes()).collect();
        let given_up = Instant::now() + self.operation_timeout;
        let (mut backoff, mut hang_ups, mut redirected) = (Backoff::between_attempts(), 0, None);
        loop {
            let destination = match redirected.take() {
                Some(redirected) => redirected,
                None => self.topology.destination(key).await?,
            };
            let error = match self.attempt(script, key, &keys, args, &destination, &mut redirected).await {
                Ok(Some(reply)) => return Ok(reply),
                Ok(None) => (ErrorKind::Client, "others keep changing the lease").into(),
                Err(Unfinished::Lost { was_idle }) => {
                    hang_ups += u32::from(!was_idle);
                    Unfinished::Lost { was_idle }.into_error()
                }
                Err(Unfinished::Elsewhere(error)) => error,
                Err(unfinished) => {
                    return Err(unfinished.into_error()).inspect_err(|error| self.topology.refresh_after(error));
                }
            };
            if Instant::now() >= given_up || hang_ups >= MOST_HANG_UPS {
                return Err(error);
            }
            if redirected.is_none() {
                sleep(backoff.next()).await;
            }
        }
    }

    /// `None`: a watched key has changed since the look.
    async fn attempt(
        &self,
        script: &Script,
        key: &Key,
        keys: &[&[u8]],
        args: &[&[u8]],
        destination: &Destination,
        redirected: &mut Option<Destination>,
    ) -> Result<Option<i64>, Unfinished> {
        let lease = keys[keys.len() - 1];
        let (only_lease, mut looks) = ([lease], vec![command(&[b"GET", lease])]);
        let watched = if script.step == Step::Touch { keys } else { &only_lease };
        match script.step {
            Step::Touch => looks.push(command(&[b"EXISTS", keys[0]])),
            Step::ClearLease => looks.push(command(&[b"PTTL", lease])),
            _ => {}
        }
        let begun = Transaction::begin(destination, self.operation_timeout, key, watched, looks).await;
        let (mut transaction, looked) = begun.inspect_err(|unfinished| {
            if let Unfinished::Elsewhere(error) = unfinished {
                *redirected = self.topology.redirected(key, destination, error);
            }
        })?;
        let (reply, commands) = decide(script.step, keys, args, looked).map_err(Unfinished::Failed)?;
        let is_decided = commands.is_empty();
        match transaction.end(self.operation_timeout, commands).await {
            Ok(is_unchanged) => {
                transaction.give_back();
                Ok((is_unchanged || is_decided).then_some(reply))
            }
            Err(_) if is_decided => Ok(Some(reply)),
            Err(Unfinished::Failed(error)) if is_dropped(&error) && script.is_idempotent => {
                Err(Unfinished::Lost { was_idle: false })
            }
            Err(Unfinished::Failed(error)) if error.is_io_error() && !script.is_idempotent => {
                // EXEC may come late, and set a lease that nobody holds any more. It does nothing once L was touched.
                let _ = self.delete(key, KeyKind::Lease).await;
                Err(Unfinished::Failed(error))
            }
            Err(unfinished) => {
                // An ASK is not followed here: while a slot moves, one of the two keys may be here and the other there.
                if let Unfinished::Elsewhere(error) = &unfinished {
                    self.topology.refresh_after(error);
                }
                Err(unfinished)
            }
        }
    }

    /// Gives a lease back without a script. If its token can't be compared, it is deleted: that only fences.
    pub(super) async fn abandon_without_script(&self, key: &Key, token: &Token) -> StoreResult<()> {
        let lease = key.lock();
        // Over the shared connection, so that it comes after an `acquire` that was given up.
        let looked: RedisResult<[_; 1]> = self.run(key, &|_, out| encode(out, &[b"GET", lease.as_bytes()])).await;
        let is_held = looked.and_then(|[holder]| Ok(holder?.bytes()?.as_deref() == Some(token.0.as_bytes())));
        let given_back = match is_held {
            Ok(false) => return Ok(()),
            Ok(true) => self.transact(&ABANDON, key, &[lease], &[token.0.as_bytes()]).await.map(drop),
            Err(error) => Err(error),
        };
        if given_back.is_err() {
            self.delete(key, KeyKind::Lease).await?;
        }
        Ok(())
    }

    /// Removes a value at L that is no proper lease. If a server without scripts can't compare it either, it is deleted.
    pub(super) async fn clear_lease(&self, key: &Key) -> StoreResult<()> {
        match self.run_script(&CLEAR_LEASE, key, &[key.lock()], &[]).await {
            Err(error) if self.scripts.are_missing() && !error.is_io_error() => {
                self.delete(key, KeyKind::Lease).await?;
            }
            cleared => drop(cleared?),
        }
        Ok(())
    }
}

/// What a script would do after its look at the keys: its reply, and the commands that write.
fn decide(
    step: Step,
    keys: &[&[u8]],
    args: &[&[u8]],
    looked: Vec<RedisResult<Reply>>,
) -> RedisResult<(i64, Vec<Vec<u8>>)> {
    let (entry, lease) = (keys[0], keys[keys.len() - 1]);
    let mut looked = looked.into_iter();
    let mut next = || looked.next().unwrap_or_else(|| Err(unexpected_reply()));
    let holder = match next() {
        Err(error) if is_wrong_type(&error) => None,
        holder => Some(holder?.bytes()?),
    };
    if step == Step::ClearLease {
        let is_proper = match holder {
            Some(Some(_)) => next()?.remaining().is_some(),
            Some(None) => true,
            None => false,
        };
        return Ok(if is_proper { (0, vec![]) } else { (1, vec![command(&[b"DEL", lease])]) });
    }
    if holder.flatten().as_deref() != Some(args[0]) {
        return Ok((0, vec![]));
    }
    let delete = |key| command(&[b"DEL", key]);
    let commands = match step {
        Step::Renew => vec![command(&[b"PEXPIRE", lease, args[1]])],
        Step::Abandon | Step::ClearLease => vec![delete(lease)],
        Step::Replace => vec![command(&[b"SET", lease, args[1], b"PX", args[2]])],
        Step::Fill if args.len() == 3 => vec![delete(entry), command(&[b"SET", lease, args[2], b"PX", args[1]])],
        Step::Fill => {
            let set: Vec<_> = [&b"HSET"[..], entry].into_iter().chain(args[2..].iter().copied()).collect();
            vec![delete(entry), command(&set), command(&[b"PEXPIRE", entry, args[1]]), delete(lease)]
        }
        Step::Touch if next()?.integer()? == 0 => return Ok((-1, vec![])),
        Step::Touch => {
            let meta = args.get(2).map(|meta| match *meta {
                b"" => command(&[b"HDEL", entry, META]),
                meta => command(&[b"HSET", entry, META, meta]),
            });
            [command(&[b"PEXPIRE", entry, args[1]])].into_iter().chain(meta).chain([delete(lease)]).collect()
        }
    };
    Ok((1, commands))
}
