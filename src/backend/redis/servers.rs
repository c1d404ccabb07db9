//! The servers that a key may be at: one, or those of a cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[cfg(feature = "cluster")]
use futures_util::FutureExt;
use redis::{Cmd, RedisError, RedisResult, Value};
use resp_rs::resp2::Frame;

#[cfg(feature = "cluster")]
use super::cluster::Cluster;
use super::node::{Destination, Node};
use crate::backend::breaker::Breaker;
use crate::key::Key;

/// The cluster's futures are boxed, so that those of a single server stay small.
pub(super) enum Servers {
    One(Arc<Node>),
    #[cfg(feature = "cluster")]
    Cluster(Arc<Cluster>),
}

#[cfg_attr(not(feature = "cluster"), expect(unused_variables, reason = "one server has all keys"))]
impl Servers {
    /// Fails unless the server, or one of the cluster's, answers.
    pub(super) async fn ping(&self) -> RedisResult<()> {
        match self {
            Self::One(node) => node.run(redis::cmd("PING")).await.map(drop),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.learn_topology().boxed().await,
        }
    }

    /// Runs a command on the key's server.
    pub(super) async fn run(&self, key: &Key, command: impl Fn() -> Cmd + Sync) -> RedisResult<Value> {
        match self {
            Self::One(node) => node.run(command()).await,
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.run(key, &command).boxed().await,
        }
    }

    /// Runs commands on the key's server in one round trip, each with a result of its own.
    pub(super) async fn run_all<const N: usize>(
        &self,
        key: &Key,
        commands: impl Fn() -> [Cmd; N] + Sync,
    ) -> RedisResult<[RedisResult<Value>; N]> {
        match self {
            Self::One(node) => node.run_all(commands()).await,
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.run_all(key, &commands).boxed().await,
        }
    }

    /// Runs commands on the key's server over the connection of reads; `None` where the shared one is to be used.
    pub(super) async fn read<const N: usize>(
        &self,
        key: &Key,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Option<RedisResult<[RedisResult<Frame>; N]>> {
        match self {
            Self::One(node) => node.read(encode).await,
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.owner(key)?.read(encode).await,
        }
    }

    pub(super) async fn destination(&self, key: &Key) -> RedisResult<Destination> {
        match self {
            Self::One(node) => Ok(Destination { node: node.clone(), asking: false }),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.destination(key).boxed().await,
        }
    }

    /// Where a command that went around [`run`](Self::run) is to be sent after this error, if it is.
    pub(super) fn redirected(&self, key: &Key, from: &Destination, error: &RedisError) -> Option<Destination> {
        match self {
            Self::One(_) => None,
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.redirected(key, from, error),
        }
    }

    /// Says that a command failed that went around [`run`](Self::run).
    pub(super) fn failed(&self) {
        match self {
            Self::One(node) => node.shared.look_again(),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.refresh(),
        }
    }

    /// Says that a step, of this key if of one, got no answer within its limit.
    pub(super) fn timed_out(&self, key: Option<&Key>, limit: Duration) {
        match (self, key) {
            (Self::One(node), _) => node.timed_out(limit),
            #[cfg(feature = "cluster")]
            (Self::Cluster(cluster), Some(key)) => cluster.timed_out(key, limit),
            #[cfg(feature = "cluster")]
            (Self::Cluster(_), None) => {}
        }
    }

    /// The breaker of the server that has the key, if it has one of its own.
    pub(super) fn breaker(&self, key: &Key) -> Option<Arc<Breaker>> {
        match self {
            Self::One(_) => None,
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.breaker(key),
        }
    }

    /// The servers that have entries.
    pub(super) async fn primaries(&self) -> RedisResult<Vec<Arc<Node>>> {
        #[cfg(feature = "cluster")]
        if let Self::Cluster(cluster) = self {
            cluster.know_topology().await?;
        }
        Ok(self.known_primaries())
    }

    /// The servers that keys may be at.
    pub(super) async fn with_keys(&self) -> RedisResult<Vec<Arc<Node>>> {
        match self {
            Self::One(node) => Ok(vec![node.clone()]),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => {
                cluster.know_topology().await?;
                Ok(cluster.with_keys())
            }
        }
    }

    pub(super) fn known_primaries(&self) -> Vec<Arc<Node>> {
        match self {
            Self::One(node) => vec![node.clone()],
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.primaries(),
        }
    }

    /// Counts the changes after which entries may be elsewhere.
    pub(super) fn changes(&self) -> Arc<AtomicU64> {
        match self {
            Self::One(node) => node.shared.losses(),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.changes(),
        }
    }

    /// What that count is now.
    pub(super) fn generation(&self) -> u64 {
        self.changes().load(Ordering::Acquire)
    }

    /// Whether all entries have stayed where they were since this generation.
    pub(super) async fn stood_still(&self, generation: u64) -> RedisResult<bool> {
        #[cfg(feature = "cluster")]
        if let Self::Cluster(cluster) = self {
            cluster.learn_topology().await?;
            if !cluster.is_settled().await? {
                return Ok(false);
            }
        }
        Ok(self.generation() == generation)
    }
}
