//! Sweeps: all keys of a type are deleted, the leases or the entries, by `SCAN` and `DEL`.

use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::future::try_join_all;
use redis::RedisResult;
use tokio::time::sleep;

use super::Redis;
use super::errors::{HANGS_UP, cannot_scan};
use super::resp::encode;
use super::shared::Shared;
use crate::backend::{DELETE_PREFIX_TIMEOUTS, KeyKind, StoreError, StoreResult};
use crate::record::{Key, KeysOfType};

/// Tells this process from others that sweep.
static PROCESS: LazyLock<String> = LazyLock::new(|| format!("{:032x}", rand::random::<u128>()));

/// A server that has started again, perhaps with old data of its own.
#[derive(Clone)]
pub(in crate::backend) struct Restarted {
    pub(in crate::backend) server: Arc<Shared>,
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
        /// If the process that sweeps dies, another one begins after this.
        const SWEEPING: &[u8] = b"10000";
        const RENEWED: Duration = Duration::from_secs(3);
        /// By then all processes know.
        const SWEPT: &[u8] = b"86400000";
        let Restarted { server, run_id } = restarted;
        if !self.topology.has_keys(server) {
            // In a cluster, a replica has taken over meanwhile.
            return Ok(true);
        }
        let key = Key::of_sweep(prefix, run_id);
        let (mark, own) = (key.as_str().as_bytes(), PROCESS.as_bytes());
        let claim = |at: usize, out: &mut Vec<u8>| match at {
            0 => encode(out, &[b"SET", mark, own, b"NX", b"PX", SWEEPING]),
            _ => encode(out, &[b"GET", mark]),
        };
        // In a cluster the mark may be at another server, which is down.
        if let Ok([Ok(begun), Ok(found)]) = self.run(&key, &claim).await
            && begun.is_nil()
            && let found = found.bytes()?
            && found.as_deref() != Some(own)
        {
            return Ok(found.as_deref() == Some(b"done"));
        }
        let renew = async {
            loop {
                sleep(RENEWED).await;
                let again = |_: usize, out: &mut Vec<u8>| encode(out, &[b"SET", mark, own, b"XX", b"PX", SWEEPING]);
                let _renewed: RedisResult<[_; 1]> = self.run(&key, &again).await;
            }
        };
        let sweep = async {
            for kind in [KeyKind::Lease, KeyKind::Entry] {
                self.sweep_server(server, prefix, kind).await?;
            }
            // A cursor means nothing to another server.
            if server.epoch().await?.run_id.as_ref() == Some(run_id) { Ok(()) } else { Err(has_moved()) }
        };
        tokio::select! {
            swept = sweep => swept?,
            () = renew => {}
        }
        let done = |_: usize, out: &mut Vec<u8>| encode(out, &[b"SET", mark, b"done", b"PX", SWEPT]);
        let _noted: RedisResult<[_; 1]> = self.run(&key, &done).await;
        Ok(true)
    }

    pub(super) async fn sweep(&self, prefix: &str, kind: KeyKind) -> StoreResult<u64> {
        // Before `changes` is read: to learn the slots for the first time counts as a change.
        drop(self.topology.known_slots().await?);
        let changes = self.topology.changes.load(Ordering::Acquire);
        // A cursor means nothing to another server, so a change on the way may leave keys out. Checked first too, so that no
        // server is scanned in vain while slots are moving.
        //
        // A slot that is copied by CLUSTER MIGRATESLOTS counts as settled: its keys are here until it changes hands, and
        // deletions are passed on before that.
        let settled = self.settled_since(changes).await?;
        let (primaries, mut deleted) = (self.topology.slots.read().primaries(), 0);
        for server in &primaries {
            deleted += self.sweep_server(&server.shared, prefix, kind).await?;
        }
        if self.settled_since(changes).await? != settled {
            return Err(has_moved());
        }
        Ok(deleted)
    }

    /// Deletes the leases, or the entries, of a type at one server.
    async fn sweep_server(&self, server: &Arc<Shared>, prefix: &str, kind: KeyKind) -> StoreResult<u64> {
        const KEYS_AT_A_TIME: &[u8] = b"500";
        let limit = self.operation_timeout * DELETE_PREFIX_TIMEOUTS;
        let keys = match kind {
            KeyKind::Lease => KeysOfType::leases(prefix),
            KeyKind::Entry => KeysOfType::entries(prefix),
        };
        let pattern = keys.pattern();
        if server.epoch().await?.hangs_up {
            return Err(cannot_scan(HANGS_UP));
        }
        let (mut cursor, mut deleted) = ("0".to_owned(), 0);
        loop {
            let scan = [b"SCAN", cursor.as_bytes(), b"MATCH", pattern.as_bytes(), b"COUNT", KEYS_AT_A_TIME];
            let scanned = server.ask(limit, &scan).await?.array()?;
            // Envoy, for example, puts the replies of all servers behind it into one.
            let one_cursor = <[_; 2]>::try_from(scanned);
            let [next, found] = one_cursor.map_err(|_| cannot_scan("SCAN is answered by several servers at once"))?;
            let found = found?.array()?.into_iter().map(|key| key?.bytes()).collect::<RedisResult<Vec<_>>>()?;
            let found: Vec<_> = found.into_iter().flatten().filter(|key| keys.contains(key)).collect();
            let deletions = found.iter().map(async |key| server.ask(limit, &[b"DEL", key]).await?.integer());
            deleted += try_join_all(deletions).await?.into_iter().filter(|was_there| *was_there != 0).count() as u64;
            cursor = next?.text()?;
            if cursor == "0" {
                return Ok(deleted);
            }
        }
    }

    /// A number that stays the same as long as all slots stay where they are. Fails if entries may have moved to another server
    /// since there were so many changes.
    pub(in crate::backend) async fn settled_since(&self, changes: u64) -> StoreResult<u64> {
        self.topology.settled_since(changes).await?.ok_or_else(has_moved)
    }
}

fn has_moved() -> StoreError {
    let cause = "another server has taken over, or hash slots are moving".into();
    StoreError::Failed { advice: "it is tried again", cause, answered: Some(true) }
}
