//! A backend with a guard of the protocol taken out, and delays around its steps that make the races wide.

use cache_aside::Backend;
use cache_aside::proof::Guard;

pub(crate) fn named(name: &str) -> Option<Guard> {
    Guard::ALL.into_iter().find(|guard| guard.name() == name)
}

/// The backend without the guard, delayed at random.
#[cfg(feature = "__proof")]
pub(crate) fn take_out(backend: &Backend, guard: Guard) -> Backend {
    use std::time::Duration;

    use cache_aside::proof::{Moment, Rig};
    use futures_util::FutureExt;
    use rand::RngExt;

    const LONGEST: Duration = Duration::from_millis(4);
    backend.rigged(Rig::new().without(guard).hook(move |point| {
        // Waiting within an update that keeps its guard would block a thread of the runtime.
        let may_wait = point.moment != Moment::Within || guard == Guard::AtomicRevocation;
        async move {
            if may_wait && rand::rng().random_bool(0.5) {
                let delay = LONGEST.mul_f64(rand::rng().random::<f64>());
                tokio::time::sleep(delay).await;
            }
        }
        .boxed()
    }))
}

#[cfg(not(feature = "__proof"))]
pub(crate) fn take_out(_backend: &Backend, _guard: Guard) -> Backend {
    unreachable!("the command line is refused without the feature")
}
