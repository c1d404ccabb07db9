//! The clock of near caches. Each hit reads it, so it is one that is cheap to read, and moves in steps.

use std::time::Duration;

use coarsetime::Instant;

/// How late the clock may be: on a Linux kernel with 100 ticks a second, and on Windows.
pub(super) const STEP: Duration = Duration::from_millis(if cfg!(windows) { 16 } else { 10 });

/// A point in time. When it is taken, it is never later than the true time, nor earlier by more than a step of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Instant);

impl Moment {
    pub(crate) fn now() -> Self {
        Self(Instant::now_without_cache_update())
    }

    /// Earlier than any other.
    pub(super) const NEVER: Self = Self(Instant::from_ticks(0));

    /// The latest moment by this clock at which no more than `duration` has passed in true time.
    pub(super) fn within(self, duration: Duration) -> Self {
        Self(self.0 + duration.saturating_sub(STEP).into())
    }

    pub(super) fn ticks(self) -> u64 {
        self.0.as_ticks()
    }

    pub(super) fn from_ticks(ticks: u64) -> Self {
        Self(Instant::from_ticks(ticks))
    }
}
