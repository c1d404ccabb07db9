//! A process whose steps a test can hold.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use cache_aside::proof::{Failpoint, Guard, Phase, Rig, Step};
use cache_aside::{Backend, Cache, CacheBuilder};
use tokio::task::JoinHandle;

use crate::support::fixture::{Found, Gate, Product, builder, get};

/// A cache whose steps can be held.
pub(crate) struct Process {
    pub(crate) cache: Cache<Product>,
    gates: Arc<Mutex<HashMap<(Step, Phase), Gate>>>,
}

impl Process {
    pub(crate) fn of(
        backend: &Backend,
        without: Option<Guard>,
        set: impl FnOnce(CacheBuilder<Product>) -> CacheBuilder<Product>,
    ) -> Self {
        Self::rigged(backend, rig(without), set)
    }

    pub(crate) fn rigged(
        backend: &Backend,
        rig: Rig,
        set: impl FnOnce(CacheBuilder<Product>) -> CacheBuilder<Product>,
    ) -> Self {
        let gates = Arc::<Mutex<HashMap<_, Gate>>>::default();
        let rig = rig.hook({
            let gates = gates.clone();
            move |Failpoint { step, phase, .. }| {
                let gate = gates.lock().unwrap().remove(&(step, phase));
                Box::pin(async move {
                    if let Some(gate) = gate {
                        gate.pass().await;
                    }
                })
            }
        });
        Self { cache: set(builder(&backend.rigged(rig))).build().unwrap(), gates }
    }

    /// Holds the next call that gets to this point.
    pub(crate) fn hold(&self, step: Step, phase: Phase) -> Gate {
        let gate = Gate::closed();
        self.gates.lock().unwrap().insert((step, phase), gate.clone());
        gate
    }

    pub(crate) fn get(&self, loader: impl Fn(String) -> Found + Send + Sync + 'static) -> JoinHandle<Option<u32>> {
        tokio::spawn(self.stock(loader))
    }

    /// A get that has joined the current flight.
    pub(crate) fn join(&self, loader: impl Fn(String) -> Found + Send + Sync + 'static) -> JoinHandle<Option<u32>> {
        let mut stock = Box::pin(self.stock(loader));
        let polled = stock.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending(), "there is a flight to join");
        tokio::spawn(stock)
    }

    fn stock(
        &self,
        loader: impl Fn(String) -> Found + Send + Sync + 'static,
    ) -> impl Future<Output = Option<u32>> + Send + 'static {
        let get = get(&self.cache, loader);
        async move { get.await.unwrap().map(|product| product.stock) }
    }
}

pub(crate) fn rig(without: Option<Guard>) -> Rig {
    without.into_iter().fold(Rig::new(), Rig::without)
}
