//! A backend with delays around its steps, which widen the races, and with a guard of the protocol taken out.

use std::time::Duration;

use cache_aside::Backend;
use cache_aside::proof::{Guard, Phase, Rig, Step};
use futures_util::FutureExt;
use rand::RngExt;

/// The guards that can be taken out.
pub(crate) fn all() -> impl Iterator<Item = Guard> {
    Guard::STORED.into_iter().chain(Guard::TAKEOVER).chain(Guard::NEAR)
}

pub(crate) fn named(name: &str) -> Option<Guard> {
    all().find(|guard| guard.name() == name)
}

/// The backend with random delays, and without the guard.
pub(crate) fn rigged(backend: &Backend, without: Option<Guard>) -> Backend {
    const LONGEST: Duration = Duration::from_millis(4);
    let rig = without.map_or_else(Rig::new, |guard| Rig::new().without(guard));
    backend.rigged(rig.hook(move |failpoint| {
        // Waiting within an update that keeps its guard would block a thread of the runtime.
        let is_within_an_update = (failpoint.step, failpoint.phase) == (Step::Update, Phase::Within);
        let may_wait = !is_within_an_update || without == Some(Guard::AtomicRevocation);
        async move {
            if may_wait && rand::rng().random_bool(0.5) {
                let delay = LONGEST.mul_f64(rand::rng().random::<f64>());
                tokio::time::sleep(delay).await;
            }
        }
        .boxed()
    }))
}
