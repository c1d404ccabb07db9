//! Jittered pauses between attempts.

use std::time::Duration;

use rand::RngExt;

/// A random 50 to 100 % of a pause, so that callers that began to wait together don't continue together.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.5..1.0))
}

/// Jittered pauses, each twice as long as the one before, up to the longest.
pub(crate) struct Backoff {
    first: Duration,
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// Between the attempts of one call, which has a deadline of its own.
    pub(crate) fn between_attempts() -> Self {
        Self::new(Duration::from_millis(1), Duration::from_millis(16))
    }

    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, next: first, longest }
    }

    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = self.longest.min(pause * 2);
        jittered(pause)
    }

    /// Starts over with the first pause.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}
