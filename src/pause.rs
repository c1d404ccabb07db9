//! Pauses between attempts.

use std::time::Duration;

use rand::RngExt;

/// From half of a pause on, at random, so that those who began to wait together don't go on together.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.5..1.0))
}
