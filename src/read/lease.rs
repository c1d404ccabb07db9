//! A lease from its holder's side: acquired, renewed while the load runs, and given back however the load ends.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use futures_util::FutureExt;
use tokio::time::Instant;

use crate::backend::{Acquired, Mark, TakeoverCount, Token};
use crate::cache::Core;
use crate::error::Error;
use crate::proof::Guard;
use crate::record::Key;

/// A lease that may be held. If it is dropped before it [ends](Self::end), because the runtime of its load shut down, it becomes
/// an orphan.
pub(super) struct Lease {
    core: Arc<Core>,
    key: Key,
    pub(super) token: Token,
    takeovers: TakeoverCount,
    has_ended: bool,
}

impl Lease {
    pub(super) fn new(core: &Arc<Core>, key: &Key) -> Self {
        let (takeovers, token) = (core.backend.takeovers(), core.backend.new_token());
        Self { core: core.clone(), key: key.clone(), token, takeovers, has_ended: false }
    }

    /// Whether the entry may be another one than the one that was found under the lease, because another server has taken over.
    pub(super) fn is_at_other_server(&self) -> bool {
        let backend = &self.core.backend;
        backend.takeovers() != self.takeovers && backend.enforces(Guard::AnswerCheck)
    }

    /// Also takes it over from a mark, unless `is_paused` says that a failed load is not to be tried again yet.
    pub(super) async fn acquire(&mut self, is_paused: impl Fn(&Acquired) -> bool) -> Result<Acquired, Error> {
        let acquired = self.acquire_or_take_over(is_paused).await;
        self.has_ended = !acquired.as_ref().is_ok_and(|acquired| acquired.granted);
        if acquired.is_err() {
            abandon_in_background(&self.core, &self.key, &self.token);
        }
        acquired
    }

    async fn acquire_or_take_over(&mut self, is_paused: impl Fn(&Acquired) -> bool) -> Result<Acquired, Error> {
        let (core, lease) = (&self.core, self.core.policy.lock_ttl);
        let acquired = core.backend.acquire(&self.key, &mut self.token, lease).await?;
        let mark = match acquired.mark() {
            None => return Ok(acquired),
            Some(Mark::Failed) if is_paused(&acquired) => return Ok(acquired),
            Some(mark) => mark,
        };
        self.token = core.backend.new_token().after_mark();
        let taken = core.backend.take_over(&self.key, mark, &self.token, lease).boxed().await?;
        // Otherwise another caller was faster, or the mark has expired: the lease was not granted.
        Ok(if taken.granted { taken } else { acquired })
    }

    pub(super) async fn give_back(self) {
        abandon(&self.core, &self.key, &self.token).await;
        self.end();
    }

    /// Replaces the lease by a mark.
    pub(super) async fn mark(self, mark: Mark) {
        let Self { core, key, token, .. } = &self;
        let ttl = match mark {
            Mark::Failed => core.policy.stale_retry,
            Mark::Unstored => core.policy.unstored_mark(),
        };
        if let Err(error) = core.backend.mark(key, token, mark, ttl).await {
            tracing::debug!(%key, %error, "a failed load could not be marked");
            abandon_in_background(core, key, token);
        }
        self.end();
    }

    /// Called once the lease is used up, given back, or left to another task to give back.
    pub(super) fn end(mut self) {
        self.has_ended = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.has_ended {
            self.core.orphans.add(self.key.clone(), self.token.clone(), self.core.policy.lock_ttl);
        }
    }
}

/// Renews a lease until it is lost, and then waits for ever: the load goes on, and its fill will be fenced.
pub(super) async fn keep_renewing(core: &Core, key: &Key, token: &Token) -> std::convert::Infallible {
    let lease = core.policy.lock_ttl;
    loop {
        tokio::time::sleep(lease / 3).await;
        if let Ok(false) = core.backend.renew(key, token, lease).boxed().await {
            core.metrics.leases_lost.count(1);
            return std::future::pending().await;
        }
    }
}

pub(super) async fn abandon(core: &Core, key: &Key, token: &Token) {
    if let Err(error) = core.backend.abandon(key, token).await {
        tracing::debug!(%key, %error, "a lease could not be given back and will run out");
    }
}

/// For a step whose outcome is unknown: the token may hold the lease. Not awaited, since the backend may not answer.
pub(super) fn abandon_in_background(core: &Arc<Core>, key: &Key, token: &Token) {
    let (core, key, token) = (core.clone(), key.clone(), token.clone());
    tokio::spawn(async move { abandon(&core, &key, &token).await });
}

/// The leases of loads whose runtime shut down. The next flight of the key gives them back.
#[derive(Default)]
pub(crate) struct Orphans {
    leases: DashMap<Key, (Token, Instant)>,
}

impl Orphans {
    pub(super) fn take(&self, key: &Key) -> Option<Token> {
        self.leases.remove(key).map(|(_, (token, _))| token)
    }

    fn add(&self, key: Key, token: Token, lease: Duration) {
        // Leases that have expired need not be given back.
        self.leases.retain(|_, (_, since)| since.elapsed() < lease);
        self.leases.insert(key, (token, Instant::now()));
    }
}
