//! The progress line on standard error: rewritten on a terminal, otherwise a new line now and then.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use crate::summary::Summary;

pub(crate) struct Progress {
    began: Instant,
    seconds: u64,
    is_terminal: bool,
    /// When the last line was printed, and how many operations there had been.
    last: (Duration, u64),
}

impl Progress {
    pub(crate) fn new(seconds: u64) -> Self {
        Self { began: Instant::now(), seconds, is_terminal: stderr().is_terminal(), last: (Duration::ZERO, 0) }
    }

    /// The time between two lines.
    pub(crate) fn pace(&self) -> Duration {
        Duration::from_secs(if self.is_terminal { 1 } else { 10 })
    }

    pub(crate) fn show(&mut self, summary: &Summary) {
        let (now, operations) = (self.began.elapsed(), summary.operations());
        let (then, before) = self.last;
        self.last = (now, operations);
        #[allow(clippy::cast_precision_loss, reason = "for display")]
        let rate = (operations - before) as f64 / (now - then).as_secs_f64();
        let line = format!(
            "{:>4} of {} s: {operations} operations, {rate:.0} per second, {} rounds checked, {} violations",
            now.as_secs(),
            self.seconds,
            summary.rounds,
            summary.violations,
        );
        let (start, end) = if self.is_terminal { ("\r\x1b[K", "") } else { ("", "\n") };
        let mut stderr = stderr();
        // It doesn't matter if a line can't be shown.
        let _ = write!(stderr, "{start}{line}{end}");
        let _ = stderr.flush();
    }

    /// Leaves the line as it is.
    pub(crate) fn end(&self) {
        if self.is_terminal {
            eprintln!();
        }
    }
}
