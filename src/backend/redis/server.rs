//! One server: the shared connection, the exclusive ones of updates, and the breaker that both feed.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use deadpool::managed::Pool;

use super::sentinel::{Master, Sentinels};
use super::shared::{Shared, Target};
use super::update::Exclusives;
use super::url::Address;
use crate::backend::breaker::Breaker;

pub(super) struct Server {
    /// Its host and port; nothing for a Unix socket, and for a master, which may be anywhere.
    place: (String, u16),
    pub(super) shared: Arc<Shared>,
    pub(super) updates: Pool<Exclusives>,
    pub(super) breaker: Arc<Breaker>,
}

/// Settings that the connections to all servers share.
#[derive(Debug, Clone, Copy)]
pub(in crate::backend) struct Limits {
    pub(in crate::backend) operation_timeout: Duration,
    pub(in crate::backend) connect_timeout: Duration,
    pub(in crate::backend) update_connections: NonZeroUsize,
    pub(in crate::backend) breaker_threshold: u32,
    pub(in crate::backend) breaker_pause: Duration,
}

impl Server {
    /// Prepares the connections to the server of `backend` at this address; none is made yet. `changes` counts the epochs that
    /// end.
    pub(super) fn new(
        address: Address,
        backend: &str,
        limits: Limits,
        changes: Arc<AtomicU64>,
    ) -> Result<Self, String> {
        let (host, port) = address.place();
        let (place, shown) = ((host.to_owned(), port), address.to_string());
        Self::with(place, shown, backend, Target::Server(Arc::new(address)), limits, changes)
    }

    /// The same for the master that the sentinels name.
    pub(super) fn following(sentinels: Sentinels, limits: Limits, changes: Arc<AtomicU64>) -> Result<Self, String> {
        let shown = sentinels.to_string();
        let target = Target::Master(Arc::new(Master::new(sentinels, limits)));
        Self::with((String::new(), 0), shown.clone(), &shown, target, limits, changes)
    }

    fn with(
        place: (String, u16),
        shown: String,
        backend: &str,
        target: Target,
        limits: Limits,
        changes: Arc<AtomicU64>,
    ) -> Result<Self, String> {
        let shared = Shared::new(target, limits, changes);
        let updates = Pool::builder(Exclusives::new(shared.clone())).max_size(limits.update_connections.get()).build();
        let updates = updates.map_err(|error| error.to_string())?;
        let breaker = Arc::new(Breaker::new(shown, backend, limits.breaker_threshold, limits.breaker_pause));
        Ok(Self { place, shared, updates, breaker })
    }

    pub(super) fn place(&self) -> (&str, u16) {
        (&self.place.0, self.place.1)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.close();
    }
}
