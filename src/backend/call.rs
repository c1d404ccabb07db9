//! A call of one of a store's steps, and what every call goes through: the circuit breaker decides whether it is made, its outcome
//! is noted there, and its error says what was tried, where, and what to do.
//!
//! Knows nothing of the steps themselves. Each step of a store bounds the time that the server may take.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::memory::Memory;
use super::redis::Redis;
use super::{Backend, StoreError, StoreResult};
use crate::backoff::jittered;
use crate::error::{Cause, Error};
use crate::metrics::{self, Series};
use crate::record::Key;

#[derive(Clone, Copy)]
pub(super) struct CallOptions<'a> {
    /// The key that the call is about, if it is about one. In a cluster each server has a breaker of its own.
    pub(super) key: Option<&'a Key>,
    /// How long each round trip may take at the server.
    pub(super) limit: Duration,
    /// Advice for the error when it takes longer.
    pub(super) advice: &'static str,
    pub(super) when_open: WhenOpen,
    /// Whether the caller logs failures itself, for many calls together.
    pub(super) quiet: bool,
}

/// How a call is treated while the breaker is open.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenOpen {
    /// It fails at once. When a probe is due, a ping is sent in the background.
    Fails,
    /// It fails at once, but when a probe is due, the call itself is the probe.
    Probes,
    /// It is made all the same.
    Passes,
}

impl<'a> CallOptions<'a> {
    /// For the steps of a get, and of its load.
    pub(super) fn for_get(backend: &Backend, key: impl Into<Option<&'a Key>>) -> Self {
        let advice = "check that the server is up and not overloaded, or raise operation_timeout";
        let limit = backend.operation_timeout();
        Self { key: key.into(), limit, advice, when_open: WhenOpen::Fails, quiet: false }
    }

    /// For invalidations and updates.
    pub(super) fn for_write(backend: &Backend, key: impl Into<Option<&'a Key>>) -> Self {
        Self { when_open: WhenOpen::Probes, ..Self::for_get(backend, key) }
    }
}

#[derive(Clone)]
pub(super) enum AnyStore {
    Memory(Arc<Memory>),
    Redis(Arc<Redis>),
}

impl AnyStore {
    /// The breaker of the server that has the key, if that server has one of its own and is known.
    pub(super) fn breaker(&self, key: &Key) -> Option<Arc<Breaker>> {
        self.redis()?.breaker(key)
    }

    pub(super) fn redis(&self) -> Option<&Arc<Redis>> {
        match self {
            Self::Memory(_) => None,
            Self::Redis(redis) => Some(redis),
        }
    }
}

/// Evaluates the same expression for either store. A macro, since each store's step has a future of its own type.
macro_rules! on_store {
    ($any:expr, $store:ident => $step:expr) => {
        match $any {
            $crate::backend::AnyStore::Memory($store) => $step,
            $crate::backend::AnyStore::Redis($store) => $step,
        }
    };
}
pub(super) use on_store;

/// Calls one step on the backend's store. A step that is named has hooks in a rigged backend.
///
/// The future is pinned here: passed on by value, it would take its memory once more at each level.
macro_rules! dispatch {
    ($backend:ident, $options:expr, $($hooked:ident)? $action:literal, $key:expr, $store:ident => $step:expr) => {{
        let options = &$options;
        let step = std::pin::pin!(async {
            $(
                #[cfg(feature = "__proof")]
                if let Some(rig) = &$backend.inner.rig {
                    let step = async {
                        $crate::backend::call::on_store!(&$backend.inner.store, store => {
                            let $store = rig::Rigged { rig, store };
                            $step.await
                        })
                    };
                    return Box::pin(rig.around(Step::$hooked, $key, options, step)).await;
                }
            )?
            $crate::backend::call::on_store!(&$backend.inner.store, $store => $step.await)
        });
        call($backend, options, || format!(concat!($action, " {}"), $key), step).await
    }};
}
pub(super) use dispatch;

/// Runs a step, if the breaker admits it.
pub(super) async fn call<R>(
    backend: &Backend,
    options: &CallOptions<'_>,
    action: impl Fn() -> String,
    step: Pin<&mut impl Future<Output = StoreResult<R>>>,
) -> Result<R, Error> {
    let inner = &backend.inner;
    if cfg!(feature = "testing") && inner.outage.load(Ordering::SeqCst) {
        return Err(failed(backend, action(), "switch the outage off again", Cause::new("an outage is simulated")));
    }
    check_runtime()?;
    let of_server = options.key.and_then(|key| inner.store.breaker(key));
    let breaker = of_server.as_deref().unwrap_or(&inner.breaker);
    if !admits(backend, options, breaker) {
        let advice = "it has not answered lately, and is left alone until it does";
        return Err(failed(backend, action(), advice, breaker.cause.lock().clone()));
    }
    let mut probe = CancelProbe { backend, options, breaker, completed: false };
    let result = step.await;
    probe.completed = true;
    let (error, cause, answered) = match result {
        Ok(reply) => {
            note_answer(backend, breaker);
            if of_server.is_some() {
                // The backend's own breaker may have been opened while nobody knew which server has the key.
                note_answer(backend, &inner.breaker);
            }
            return Ok(reply);
        }
        Err(StoreError::Failed { advice, cause, answered }) => {
            let cause = Cause::new(cause);
            (failed(backend, action(), advice, cause.clone()), cause, answered)
        }
        Err(StoreError::TimedOut) => {
            let CallOptions { limit, advice, .. } = *options;
            // Without the key, since it is shown with steps on other keys.
            let cause = Cause::new(format!("a step did not end within {limit:?}"));
            (timed_out(backend, &action(), limit, advice), cause, Some(false))
        }
    };
    report(backend, breaker, &error, answered == Some(true), options.quiet);
    match answered {
        Some(true) => note_answer(backend, breaker),
        Some(false) if breaker.not_answered(cause) => {
            tracing::warn!(address = breaker.address, "the cache does not answer: reads go around it");
        }
        _ => {}
    }
    Err(error)
}

fn admits(backend: &Backend, options: &CallOptions<'_>, breaker: &Breaker) -> bool {
    if options.when_open == WhenOpen::Passes || breaker.is_closed() {
        return true;
    }
    let is_probe = breaker.claim_probe();
    if is_probe && options.when_open == WhenOpen::Fails {
        ping_in_background(backend, options.key);
        return false;
    }
    is_probe
}

fn ping_in_background(backend: &Backend, key: Option<&Key>) {
    if let Ok(runtime) = Handle::try_current() {
        let (backend, key) = (backend.clone(), key.cloned());
        runtime.spawn(async move { backend.ping_within(key.as_ref(), backend.operation_timeout()).await });
    }
}

pub(super) fn note_answer(backend: &Backend, breaker: &Breaker) {
    if breaker.answered() {
        tracing::info!(address = breaker.address, "the cache answers again");
        backend.inner.pending.try_now.notify_one();
    }
}

/// If the caller drops the future early, nobody records success or failure. A ping is sent in its place, so that callers with
/// short timeouts can still open the breaker.
struct CancelProbe<'a> {
    backend: &'a Backend,
    options: &'a CallOptions<'a>,
    breaker: &'a Breaker,
    completed: bool,
}

impl Drop for CancelProbe<'_> {
    fn drop(&mut self) {
        if !self.completed && self.options.when_open != WhenOpen::Passes && self.breaker.may_ping() {
            ping_in_background(self.backend, self.options.key);
        }
    }
}

/// In place of the time of the next probe.
const CLOSED: u64 = 0;

/// The circuit breaker: it stops callers from waiting for a server that doesn't answer.
///
/// ```text
///              `threshold` steps in a row                  the pause is over: one
///              without an answer                           step passes as the probe
///   closed ───────────────────────────────▶ open ──────────────────────────────────▶ half-open
///     ▲  every step passes                  ▲ │  every step is refused                 │  │
///     │                                     │ │                                        │  │
///     └──────────── any answer ─────────────┼─┴────────────────────────────────────────┘  │
///                                           └───────── no answer within another pause ────┘
/// ```
///
/// Closed, it costs one atomic read. An error that a server sends is an answer too.
///
/// Source: M. T. Nygard, *Release It!*, 2007, "Circuit Breaker".
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
    ping_due: AtomicU64,
    start: Instant,
    /// Why the last step without an answer failed. The cause in the errors of refused steps.
    cause: Mutex<Cause>,
    gauge: Series,
}

impl Breaker {
    /// `backend` is the label of the gauge. All servers of a backend share it: in a cluster they come and go, and a label for
    /// each would stay for good.
    pub(super) fn new(address: String, backend: &str, threshold: u32, pause: Duration) -> Self {
        Self {
            address,
            threshold,
            pause,
            unanswered: AtomicU32::new(0),
            probe_due: AtomicU64::new(CLOSED),
            ping_due: AtomicU64::new(0),
            start: Instant::now(),
            cause: Mutex::new(Cause::new("it did not answer")),
            gauge: metrics::gauge(metrics::BREAKER_OPEN, backend),
        }
    }

    fn is_closed(&self) -> bool {
        self.probe_due.load(Ordering::Acquire) == CLOSED
    }

    /// Whether the caller may go on, as the probe. All others are refused until it is answered, or the next probe is due.
    fn claim_probe(&self) -> bool {
        let due = self.probe_due.load(Ordering::Acquire);
        let claim = || self.probe_due.compare_exchange(due, self.next_probe(), Ordering::AcqRel, Ordering::Acquire);
        due != CLOSED && self.now() >= due && claim().is_ok()
    }

    /// Whether to send a ping in place of a cancelled step: not while the breaker is open, and only for one of many.
    fn may_ping(&self) -> bool {
        const PART_OF_PAUSE: u32 = 10;
        let (due, now) = (self.ping_due.load(Ordering::Relaxed), self.now());
        let next = now.saturating_add(nanos(self.pause / PART_OF_PAUSE));
        let claim = || self.ping_due.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed);
        self.is_closed() && now >= due && claim().is_ok()
    }

    /// Notes an answer; returns whether it has closed the breaker.
    pub(super) fn answered(&self) -> bool {
        // Both are checked: `not_answered` counts first and opens then, and this may come between the two.
        if self.unanswered.load(Ordering::Relaxed) == 0 && self.is_closed() {
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
    fn not_answered(&self, cause: Cause) -> bool {
        *self.cause.lock() = cause;
        let unanswered = self.unanswered.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let opened = unanswered >= self.threshold && self.probe_due.swap(self.next_probe(), Ordering::AcqRel) == CLOSED;
        if opened {
            self.gauge.add(1.0);
        }
        opened
    }

    fn now(&self) -> u64 {
        nanos(self.start.elapsed())
    }

    /// Jittered, so that not all processes ask a returning server at the same time.
    fn next_probe(&self) -> u64 {
        self.now().saturating_add(nanos(jittered(self.pause)))
    }
}

impl Drop for Breaker {
    fn drop(&mut self) {
        if *self.probe_due.get_mut() != CLOSED {
            self.gauge.add(-1.0);
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Logs and counts a failure.
pub(super) fn report(backend: &Backend, breaker: &Breaker, error: &Error, answered: bool, quiet: bool) {
    if !quiet {
        let (address, cause) = (&breaker.address, std::error::Error::source(error).map(ToString::to_string));
        backend.inner.repeats.warn(format!("{address} {cause:?}"), |times| {
            tracing::warn!(address, cause, times, "a step on the cache failed");
        });
    }
    tracing::debug!(%error, "the step that failed");
    backend.inner.metrics.step_failed(answered);
}

pub(super) fn timed_out(backend: &Backend, action: &str, limit: Duration, advice: &'static str) -> Error {
    let action = format!("the attempt to {action} at {}", backend.inner.address);
    Error::Timeout { action, limit, advice }
}

pub(super) fn failed(backend: &Backend, action: String, advice: &'static str, source: Cause) -> Error {
    Error::Backend { action, address: backend.inner.address.clone(), advice, source }
}

/// Fails outside of a runtime, where timers and tasks would panic. Whether the runtime has timers can't be asked.
pub(crate) fn check_runtime() -> Result<(), Error> {
    Handle::try_current()
        .map(drop)
        .map_err(|_| Error::config("there is no tokio runtime here: call this inside `#[tokio::main]` or `block_on`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(1);

    fn open() -> Breaker {
        let breaker = Breaker::new("memory://".to_owned(), "memory://", 3, PAUSE);
        for _ in 0..10 {
            assert!(!breaker.answered(), "it was closed");
            assert!(!fails(&breaker) && !fails(&breaker) && breaker.is_closed());
        }
        assert!(fails(&breaker), "the third in a row");
        assert!(!breaker.is_closed() && !breaker.claim_probe());
        breaker
    }

    fn fails(breaker: &Breaker) -> bool {
        breaker.not_answered(Cause::new("no answer"))
    }

    #[tokio::test(start_paused = true)]
    async fn lets_one_probe_through_in_each_pause() {
        let breaker = open();
        for _ in 0..3 {
            tokio::time::advance(PAUSE).await;
            assert!(breaker.claim_probe() && !breaker.claim_probe());
            assert!(!fails(&breaker), "it was open");
            assert!(!breaker.is_closed() && !breaker.claim_probe());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn any_answer_closes_it() {
        let breaker = open();
        assert!(breaker.answered() && breaker.is_closed());
        assert!(!fails(&breaker) && breaker.is_closed(), "the count begins anew");

        let breaker = open();
        // An answer came between the two steps of the last failure.
        breaker.unanswered.store(0, Ordering::Relaxed);
        assert!(breaker.answered() && breaker.is_closed());
    }
}
