//! One server: the shared connection, the exclusive ones of updates, and the breaker that both feed.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::connect::Target;
use super::exclusive::Exclusives;
use super::shared::Shared;
use super::topology::Place;
use crate::backend::builder::Settings;
use crate::backend::call::Breaker;

pub(super) struct Server {
    /// Empty for a Unix socket, and for a master, which may be anywhere.
    pub(super) place: Place,
    pub(super) shared: Arc<Shared>,
    pub(super) updates: Exclusives,
    pub(super) breaker: Arc<Breaker>,
}

impl Server {
    /// Prepares the connections to a server; none is made yet. `backend` is the label of its gauges, and `changes` counts the
    /// epochs that end.
    pub(super) fn new(target: Target, backend: &str, settings: Settings, changes: Arc<AtomicU64>) -> Self {
        let (place, shown) = match &target {
            Target::Server(address) => (address.place.clone(), address.to_string()),
            Target::Master(sentinels) => (Place::default(), sentinels.to_string()),
        };
        let shared = Shared::new(target, settings, changes);
        let updates = Exclusives::new(shared.clone(), settings.update_connections);
        let breaker = Arc::new(Breaker::new(shown, backend, settings.breaker_threshold, settings.breaker_pause));
        Self { place, shared, updates, breaker }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.close();
    }
}
