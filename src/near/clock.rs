//! The clock of the near cache: read with each hit, so it is one that costs little and moves in steps.

use std::time::Duration;

use coarsetime::Instant;

/// By how much the clock may be behind: where a Linux kernel counts a hundred steps a second, and on Windows.
pub(super) const STEP: Duration = Duration::from_millis(if cfg!(windows) { 16 } else { 10 });

/// A point in time, never later than the true one, nor earlier by more than the clock's step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Instant);

impl Moment {
    pub(crate) fn now() -> Self {
        Self(Instant::now_without_cache_update())
    }

    /// Before everything.
    pub(super) const NEVER: Self = Self(Instant::from_ticks(0));

    /// The latest moment by this clock at which, by the true time, no more than `duration` has passed.
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
