//! The circuit breaker: it stops callers from waiting for a server that doesn't answer.
//!
//! ```text
//!              `threshold` steps in a row                  the pause is over: one
//!              without an answer                           step passes as the probe
//!   closed ───────────────────────────────▶ open ──────────────────────────────────▶ half-open
//!     ▲  every step passes                  ▲ │  every step is refused                 │  │
//!     │                                     │ │                                        │  │
//!     └──────────── any answer ─────────────┼─┴────────────────────────────────────────┘  │
//!                                           └───────── no answer within another pause ────┘
//! ```
//!
//! Closed, it costs one atomic read. An error that a server sends is an answer too.
//!
//! Source: M. T. Nygard, *Release It!*, 2007, "Circuit Breaker".

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::backoff::jittered;
use crate::error::{Cause, Error};
use crate::metrics::{self, Series};

/// In place of the time of the next probe.
const CLOSED: u64 = 0;

pub(super) struct Breaker {
    /// The server's address, without credentials.
    pub(super) address: String,
    threshold: u32,
    pause: Duration,
    /// Steps without an answer since the last answer.
    unanswered: AtomicU32,
    /// When the next probe is due, in nanoseconds since `start`; or [`CLOSED`].
    probe_due: AtomicU64,
    /// When the next ping may be sent in place of a cancelled step, in nanoseconds since `start`.
    cancel_probe_due: AtomicU64,
    start: Instant,
    last_cause: Mutex<Option<Cause>>,
    gauge: Series,
}

/// Whether a step may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Go on.
    Pass,
    /// Go on as the probe. All others are refused until it is answered, or the next probe is due.
    Probe,
    /// Fail.
    Refused,
}

impl Breaker {
    /// `backend` is the label of the gauge. All servers of a backend share it: in a cluster they come and go, and a label for
    /// each would stay for good.
    pub(super) fn new(address: String, backend: &str, threshold: u32, pause: Duration) -> Self {
        let gauge = metrics::gauge(metrics::BREAKER_OPEN, backend);
        Self {
            address,
            threshold,
            pause,
            unanswered: AtomicU32::new(0),
            probe_due: AtomicU64::new(CLOSED),
            cancel_probe_due: AtomicU64::new(0),
            start: Instant::now(),
            last_cause: Mutex::new(None),
            gauge,
        }
    }

    pub(super) fn admit(&self) -> Admission {
        let due = self.probe_due.load(Ordering::Acquire);
        if due == CLOSED {
            return Admission::Pass;
        }
        if self.now() < due {
            return Admission::Refused;
        }
        let claimed = self.probe_due.compare_exchange(due, self.next_probe(), Ordering::AcqRel, Ordering::Acquire);
        if claimed.is_ok() { Admission::Probe } else { Admission::Refused }
    }

    /// Whether to send a ping in place of a cancelled step: not while the breaker is open, and only for one of many.
    pub(super) fn may_probe(&self) -> bool {
        const PART_OF_PAUSE: u32 = 10;
        if self.probe_due.load(Ordering::Acquire) != CLOSED {
            return false;
        }
        let (due, now) = (self.cancel_probe_due.load(Ordering::Relaxed), self.now());
        let next = now.saturating_add(nanos(self.pause / PART_OF_PAUSE));
        now >= due && self.cancel_probe_due.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Notes an answer; returns whether it has closed the breaker.
    pub(super) fn answered(&self) -> bool {
        // Both are checked: `not_answered` counts first and opens then, and this may come between the two.
        if self.unanswered.load(Ordering::Relaxed) == 0 && self.probe_due.load(Ordering::Acquire) == CLOSED {
            return false;
        }
        self.unanswered.store(0, Ordering::Relaxed);
        let closed = self.probe_due.swap(CLOSED, Ordering::AcqRel) != CLOSED;
        if closed {
            self.gauge.add(-1.0);
        }
        closed
    }

    /// Notes a step without an answer; returns whether it has opened the breaker.
    pub(super) fn not_answered(&self, error: &Error) -> bool {
        *self.last_cause.lock() = Some(cause_for_others(error));
        let unanswered = self.unanswered.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let opened = unanswered >= self.threshold && self.probe_due.swap(self.next_probe(), Ordering::AcqRel) == CLOSED;
        if opened {
            self.gauge.add(1.0);
        }
        opened
    }

    /// The cause in the error of a refused step.
    pub(super) fn cause(&self) -> Cause {
        let last_cause = self.last_cause.lock();
        last_cause.clone().unwrap_or_else(|| Cause::new("it did not answer"))
    }

    fn now(&self) -> u64 {
        nanos(self.start.elapsed())
    }

    /// Jittered, so that not all processes ask a returning server at the same time.
    fn next_probe(&self) -> u64 {
        self.now().saturating_add(nanos(jittered(self.pause))).max(CLOSED + 1)
    }
}

impl Drop for Breaker {
    fn drop(&mut self) {
        if *self.probe_due.get_mut() != CLOSED {
            self.gauge.add(-1.0);
        }
    }
}

/// The cause of a step's error without its key, for steps on other keys.
fn cause_for_others(error: &Error) -> Cause {
    match error {
        Error::Backend { source, .. } => source.clone(),
        Error::Timeout { limit, .. } => Cause::new(format!("a step did not end within {limit:?}")),
        _ => Cause::new("it did not answer"),
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(1);

    fn error() -> Error {
        Error::config("no answer")
    }

    fn open() -> Breaker {
        let breaker = Breaker::new("memory://".to_owned(), "memory://", 3, PAUSE);
        for _ in 0..10 {
            assert!(!breaker.answered(), "it was closed");
            assert!(!breaker.not_answered(&error()) && !breaker.not_answered(&error()));
        }
        assert_eq!(breaker.admit(), Admission::Pass);
        assert!(breaker.not_answered(&error()), "the third in a row");
        assert_eq!(breaker.admit(), Admission::Refused);
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn lets_one_probe_through_in_each_pause() {
        let breaker = open();
        for _ in 0..3 {
            tokio::time::advance(PAUSE).await;
            assert_eq!(breaker.admit(), Admission::Probe);
            assert_eq!(breaker.admit(), Admission::Refused);
            assert!(!breaker.not_answered(&error()), "it was open");
            assert_eq!(breaker.admit(), Admission::Refused);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn any_answer_closes_it() {
        let breaker = open();
        assert!(breaker.answered());
        assert_eq!(breaker.admit(), Admission::Pass);
        assert!(!breaker.not_answered(&error()), "the count begins anew");
        assert_eq!(breaker.admit(), Admission::Pass);

        let breaker = open();
        // An answer came between the two steps of the last failure.
        breaker.unanswered.store(0, Ordering::Relaxed);
        assert!(breaker.answered());
        assert_eq!(breaker.admit(), Admission::Pass);
    }
}
