//! One call of a store's step, and what every call goes through: the circuit breaker decides whether it is made, its outcome is
//! noted there, and its error says what was tried, where, and what to do.
//!
//! Knows nothing of the steps themselves. Each step of a store bounds the time that the server may take.

use std::pin::Pin;
#[cfg(feature = "testing")]
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Handle;

use super::breaker::{Admission, Breaker};
use super::{Backend, StoreError, StoreResult};
use crate::error::{Cause, Error};
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

const SLOW_SERVER: &str = "check that the server is up and not overloaded, or raise operation_timeout";

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
    pub(super) fn read(backend: &Backend, key: impl Into<Option<&'a Key>>) -> Self {
        let (key, limit) = (key.into(), backend.operation_timeout());
        Self { key, limit, advice: SLOW_SERVER, when_open: WhenOpen::Fails, quiet: false }
    }

    pub(super) fn write(backend: &Backend, key: impl Into<Option<&'a Key>>) -> Self {
        Self { when_open: WhenOpen::Probes, ..Self::read(backend, key) }
    }
}

/// Runs a step, if the breaker admits it.
pub(super) async fn call<R>(
    backend: &Backend,
    options: &CallOptions<'_>,
    action: impl Fn() -> String,
    step: Pin<&mut impl Future<Output = StoreResult<R>>>,
) -> Result<R, Error> {
    let inner = &backend.inner;
    #[cfg(feature = "testing")]
    if inner.outage.load(Ordering::SeqCst) {
        return Err(failed(backend, action(), "switch the outage off again", Cause::new("an outage is simulated")));
    }
    check_runtime()?;
    let of_server = options.key.and_then(|key| inner.store.breaker(key));
    let breaker = of_server.as_deref().unwrap_or(&inner.breaker);
    if !admits(backend, options, breaker) {
        let advice = "it has not answered lately, and is left alone until it does";
        return Err(failed(backend, action(), advice, breaker.cause()));
    }
    let mut probe = CancelProbe { backend, options, breaker, completed: false };
    let result = step.await;
    probe.completed = true;
    let (error, answered) = match result {
        Ok(reply) => {
            note_answer(backend, breaker);
            if of_server.is_some() {
                // The backend's own breaker may have been opened while nobody knew which server has the key.
                note_answer(backend, &inner.breaker);
            }
            return Ok(reply);
        }
        Err(StoreError::Failed { advice, cause, answered }) => {
            (failed(backend, action(), advice, Cause::new(cause)), answered)
        }
        Err(StoreError::TimedOut) => (timed_out(backend, &action(), options.limit, options.advice), Some(false)),
    };
    report(backend, breaker, &error, answered == Some(true), options.quiet);
    match answered {
        Some(true) => note_answer(backend, breaker),
        Some(false) => note_silence(breaker, &error),
        None => {}
    }
    Err(error)
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

fn admits(backend: &Backend, options: &CallOptions<'_>, breaker: &Breaker) -> bool {
    if options.when_open == WhenOpen::Passes {
        return true;
    }
    match breaker.admit() {
        Admission::Pass => true,
        Admission::Probe if options.when_open == WhenOpen::Probes => true,
        Admission::Probe => {
            ping_in_background(backend, options.key);
            false
        }
        Admission::Refused => false,
    }
}

fn ping_in_background(backend: &Backend, key: Option<&Key>) {
    if let Ok(runtime) = Handle::try_current() {
        let (backend, key) = (backend.clone(), key.cloned());
        runtime.spawn(async move { backend.ping(key.as_ref(), backend.operation_timeout()).await });
    }
}

fn note_answer(backend: &Backend, breaker: &Breaker) {
    if breaker.answered() {
        let address = &breaker.address;
        tracing::info!(address, "the cache answers again");
        backend.inner.pending.try_now.notify_one();
    }
}

fn note_silence(breaker: &Breaker, error: &Error) {
    if breaker.not_answered(error) {
        let address = &breaker.address;
        tracing::warn!(address, "the cache does not answer: reads go around it");
    }
}

pub(super) fn timed_out(backend: &Backend, action: &str, limit: Duration, advice: &'static str) -> Error {
    let action = format!("the attempt to {action} at {}", backend.inner.address);
    Error::Timeout { action, limit, advice }
}

pub(super) fn failed(backend: &Backend, action: String, advice: &'static str, source: Cause) -> Error {
    Error::Backend { action, address: backend.inner.address.clone(), advice, source }
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
        if !self.completed && self.options.when_open != WhenOpen::Passes && self.breaker.may_probe() {
            ping_in_background(self.backend, self.options.key);
        }
    }
}

/// Fails outside of a runtime, where timers and tasks would panic. Whether the runtime has timers can't be asked.
pub(crate) fn check_runtime() -> Result<(), Error> {
    Handle::try_current()
        .map(drop)
        .map_err(|_| Error::config("there is no tokio runtime here: call this inside `#[tokio::main]` or `block_on`"))
}
