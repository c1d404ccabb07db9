//! Sweeps: all keys of a type are deleted, the leases or the entries, by `SCAN` and `DEL`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::try_join_all;
use redis::RedisResult;

use super::Redis;
use super::errors::unexpected_reply;
use super::resp::encode;
use super::shared::Shared;
use crate::backend::{DELETE_PREFIX_TIMEOUTS, KeyKind, StoreError, StoreResult};
use crate::record::Key;

/// A server that has started again, perhaps with old data of its own.
#[derive(Clone)]
pub(in crate::backend) struct Restarted {
    pub(super) server: Arc<Shared>,
    pub(super) run_id: String,
}

impl Restarted {
    pub(in crate::backend) fn is_at(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.server, &other.server)
    }
}

impl PartialEq for Restarted {
    fn eq(&self, other: &Self) -> bool {
        self.is_at(other) && self.run_id == other.run_id
    }
}

impl Redis {
    /// Sweeps a type at a server that has started again, unless another process does; returns whether that is done. Where the
    /// processes can't agree, each sweeps.
    pub(in crate::backend) async fn sweep_restarted(&self, restarted: &Restarted, prefix: &str) -> StoreResult<bool> {
        /// Longer than a sweep takes. If the process that sweeps dies, another one begins after this.
        const SWEEPING: &[u8] = b"10000";
        /// By then all processes know.
        const SWEPT: &[u8] = b"3600000";
        let Restarted { server, run_id } = restarted;
        let mark = Key::of_sweep(prefix, run_id);
        let mark = (&mark, mark.as_str().as_bytes());
        let [begun, found] = self
            .run(mark.0, &|at, out| match at {
                0 => encode(out, &[b"SET", mark.1, b"sweeping", b"NX", b"PX", SWEEPING]),
                _ => encode(out, &[b"GET", mark.1]),
            })
            .await?;
        if begun.is_ok_and(|begun| begun.is_nil()) {
            return Ok(found?.bytes()?.as_deref() == Some(b"done"));
        }
        for kind in [KeyKind::Lease, KeyKind::Entry] {
            self.sweep_server(server, prefix, kind).await?;
        }
        let [_noted] = self.run(mark.0, &|_, out| encode(out, &[b"SET", mark.1, b"done", b"PX", SWEPT])).await?;
        Ok(true)
    }

    pub(super) async fn sweep(&self, prefix: &str, kind: KeyKind) -> StoreResult<u64> {
        // Before `changes` is read: to learn the slots for the first time counts as a change.
        drop(self.topology.known_slots().await?);
        let changes = self.topology.changes.load(Ordering::Acquire);
        // A cursor means nothing to another server, so a change on the way may leave keys out. Checked first too, so that no
        // server is scanned in vain while slots are moving.
        self.is_settled_since(changes).await?;
        let (primaries, mut deleted) = (self.topology.slots.read().primaries(), 0);
        for server in &primaries {
            deleted += self.sweep_server(&server.shared, prefix, kind).await?;
        }
        self.is_settled_since(changes).await?;
        Ok(deleted)
    }

    /// Deletes the leases, or the entries, of a type at one server.
    async fn sweep_server(&self, server: &Arc<Shared>, prefix: &str, kind: KeyKind) -> RedisResult<u64> {
        const KEYS_AT_A_TIME: &[u8] = b"500";
        let limit = self.operation_timeout * DELETE_PREFIX_TIMEOUTS;
        let (before, after) = match kind {
            KeyKind::Lease => (format!("{{{prefix}"), "}:lock"),
            KeyKind::Entry => (prefix.to_owned(), ""),
        };
        // Finds the keys of the type, and more. A prefix has no character that is special in a pattern.
        let pattern = format!("{before}*{after}");
        let (mut cursor, mut deleted) = ("0".to_owned(), 0);
        loop {
            let scan = [b"SCAN", cursor.as_bytes(), b"MATCH", pattern.as_bytes(), b"COUNT", KEYS_AT_A_TIME];
            let scanned = server.ask(limit, &scan).await?.array()?;
            let [next, found] = <[_; 2]>::try_from(scanned).map_err(|_| unexpected_reply())?;
            let found = found?.array()?.into_iter().map(|key| key?.bytes()).collect::<RedisResult<Vec<_>>>()?;
            let found: Vec<_> = found.into_iter().flatten().filter(|key| is_of_type(key, &before, after)).collect();
            let deletions = found.iter().map(async |key| server.ask(limit, &[b"DEL", key]).await?.integer());
            deleted += try_join_all(deletions).await?.into_iter().filter(|was_there| *was_there != 0).count() as u64;
            cursor = next?.text()?;
            if cursor == "0" {
                return Ok(deleted);
            }
        }
    }

    /// Fails if entries may have moved to another server since there were so many changes.
    async fn is_settled_since(&self, changes: u64) -> StoreResult<()> {
        if self.topology.is_unchanged_since(changes).await? {
            return Ok(());
        }
        let cause = "another server has taken over, or hash slots are moving".into();
        Err(StoreError::Failed { advice: "it is tried again", cause, answered: Some(true) })
    }
}

/// Whether a key is an id between these two. A namespace may have the name of an entity without a namespace, and then the keys
/// of its entities begin with that prefix too.
fn is_of_type(key: &[u8], before: &str, after: &str) -> bool {
    let id = key.strip_prefix(before.as_bytes()).and_then(|key| key.strip_suffix(after.as_bytes()));
    id.is_some_and(|id| !id.contains(&b':'))
}
