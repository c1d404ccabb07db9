//! The part of a cache that its clones and flights share: [`Core`], which knows nothing of the record's type.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::policy::Policy;
use crate::backend::{Backend, Selection};
use crate::meter::{CacheMeter, NearMeter};
use crate::near::Near;
use crate::read::{Flights, Orphans, Refreshes};
use crate::record::{KeySpace, Shape};
use crate::stats::Stats;

pub(crate) struct Core {
    pub(crate) shape: &'static Shape,
    pub(crate) backend: Backend,
    pub(crate) policy: Policy,
    pub(crate) meter: CacheMeter,
    pub(crate) near: Option<Arc<Near>>,
    pub(crate) keys: KeySpace,
    /// The fields that a whole record is made of.
    pub(crate) selection: Selection,
    /// Flights through the cache, and around it.
    pub(crate) flights: Arc<Flights>,
    pub(crate) bypasses: Arc<Flights>,
    pub(crate) refreshes: Refreshes,
    pub(crate) orphans: Orphans,
    /// Permits for loads around the cache.
    pub(crate) bypass_loads: Semaphore,
}

impl Core {
    pub(super) fn new(shape: &'static Shape, backend: Backend, namespace: Option<&str>, policy: Policy) -> Self {
        let keys = KeySpace::new(namespace, &shape.schema);
        let (namespace, entity) = (namespace.unwrap_or_default(), shape.schema.entity);
        let near = policy.near_cache.filter(|_| policy.enabled).and_then(|settings| {
            let tracking = backend.tracking()?;
            let (largest, meter) = (policy.max_entry_bytes, NearMeter::new(namespace, entity));
            let near = Near::new(settings, keys.prefix(), largest, tracking, meter);
            backend.track();
            Some(near)
        });
        Self {
            shape,
            near,
            keys,
            meter: CacheMeter::new(namespace, entity),
            selection: Selection::of(&shape.schema),
            flights: Arc::default(),
            bypasses: Arc::default(),
            refreshes: Refreshes::default(),
            orphans: Orphans::default(),
            bypass_loads: Semaphore::new(policy.max_bypass_loads),
            backend,
            policy,
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let mut stats = self.meter.counts.snapshot();
        if let Some(near) = &self.near {
            near.meter.add_to(&mut stats);
            stats.tracker = near.tracker();
        }
        stats
    }

    pub(super) fn reset_stats(&self) {
        self.meter.counts.reset();
        if let Some(near) = &self.near {
            near.meter.reset();
        }
    }
}
