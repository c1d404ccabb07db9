//! Pauses between attempts.

use std::time::Duration;

use rand::RngExt;

/// From half of a pause on, at random, so that those who began to wait together don't go on together.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.5..1.0))
}

/// Jittered pauses, each twice as long as the last one, up to the longest.
pub(crate) struct Backoff {
    pause: Duration,
    longest: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { pause: first, longest }
    }

    pub(crate) fn next(&mut self) -> Duration {
        let pause = jittered(self.pause);
        self.pause = self.longest.min(self.pause * 2);
        pause
    }
}
