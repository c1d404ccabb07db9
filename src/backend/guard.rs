//! The one place that every step passes: it asks the circuit breaker, sets the deadline, and says in the error what was
//! tried, where, and what to do.

use std::pin::Pin;
use std::sync::Arc;
#[cfg(feature = "testing")]
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Handle;

use super::breaker::{Admission, Breaker};
use super::deadline::within;
use super::{Backend, StepError, Store};
use crate::error::{Cause, Error};
use crate::key::Key;

/// A step's call: how long it may take, what to do when it takes longer, and what becomes of it while the breaker is open.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    /// What it is about, if that is one entry: in a cluster each server has a breaker of its own.
    pub(super) key: Option<&'a Key>,
    /// How long each of its round trips may take at the server.
    pub(super) limit: Duration,
    /// How long all of it may take, if that is bounded.
    pub(super) outer_limit: Option<Duration>,
    pub(super) advice: &'static str,
    pub(super) while_open: WhileOpen,
    /// Whether somebody else tells of its failures, many at a time.
    pub(super) quiet: bool,
}

const SLOW_SERVER: &str = "check that the server is up and not overloaded, or raise operation_timeout";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum WhileOpen {
    /// It fails at once. When a probe is due, a ping in the background is that.
    Fails,
    /// The same; but when a probe is due, it is that itself.
    Probes,
    /// It is tried in any case.
    Passes,
}

impl Backend {
    /// Runs a step, if the breaker lets it pass, under its deadline, and turns its failure into what the user is told.
    pub(super) async fn guard<R>(
        &self,
        call: &Call<'_>,
        action: impl Fn() -> String,
        step: Pin<&mut impl Future<Output = Result<R, StepError>>>,
    ) -> Result<R, Error> {
        #[cfg(feature = "testing")]
        if self.shared.outage.load(Ordering::SeqCst) {
            return Err(self.failed(action(), "switch the outage off again", Cause::new("an outage is simulated")));
        }
        check_runtime()?;
        let of_server = call.key.and_then(|key| self.breaker_of_server(key));
        let breaker = of_server.as_deref().unwrap_or(&self.shared.breaker);
        if !self.admits(call, breaker) {
            let advice = "it has not answered lately, and is left alone until it does";
            return Err(self.failed(action(), advice, breaker.cause()));
        }
        let mut probe = CancelProbe { backend: self, call, breaker, completed: false };
        // Boxed, so that the future of a hit, which has no timer, stays small.
        let ended = match call.outer_limit {
            Some(limit) => Box::pin(within(limit, step)).await,
            // The store itself sees to the limit of each round trip.
            None => Some(step.await),
        };
        probe.completed = true;
        let (error, answered) = match ended {
            Some(Ok(reply)) => {
                self.answered(breaker);
                if of_server.is_some() {
                    // It may have been opened while nobody knew which server has the key.
                    self.answered(&self.shared.breaker);
                }
                return Ok(reply);
            }
            Some(Err(StepError::Refused(error))) => {
                self.answered(breaker);
                return Err(error);
            }
            Some(Err(StepError::Failed { advice, cause, answered })) => {
                (self.failed(action(), advice, Cause::new(cause)), answered)
            }
            Some(Err(StepError::TimedOut)) => {
                // An update's advice is about all of it.
                let advice = if call.outer_limit.is_some() { SLOW_SERVER } else { call.advice };
                (self.timed_out(&action(), call.limit, advice), Some(false))
            }
            // It may be others who keep the entry busy.
            None => (self.timed_out(&action(), call.outer_limit.unwrap_or(call.limit), call.advice), None),
        };
        if !call.quiet {
            let (address, cause) = (&breaker.address, std::error::Error::source(&error).map(ToString::to_string));
            self.repeats().warn(format!("{address} {cause:?}"), |times| {
                tracing::warn!(address, cause, times, "a step on the cache failed");
            });
        }
        tracing::debug!(%error, "the step that failed");
        self.shared.meter.step_failed(answered == Some(true));
        match answered {
            Some(true) => self.answered(breaker),
            Some(false) => self.not_answered(breaker, &error),
            None => {}
        }
        Err(error)
    }

    pub(super) fn breaker_of_server(&self, key: &Key) -> Option<Arc<Breaker>> {
        match &self.shared.store {
            Store::Memory(_) => None,
            Store::Redis(redis) => redis.breaker_of_server(key),
        }
    }

    fn admits(&self, call: &Call<'_>, breaker: &Breaker) -> bool {
        if call.while_open == WhileOpen::Passes {
            return true;
        }
        match breaker.admit() {
            Admission::Pass => true,
            Admission::Probe if call.while_open == WhileOpen::Probes => true,
            Admission::Probe => {
                let (backend, key) = (self.clone(), call.key.cloned());
                tokio::spawn(async move { backend.ping(key.as_ref(), backend.operation_timeout()).await });
                false
            }
            Admission::Refused => false,
        }
    }

    fn answered(&self, breaker: &Breaker) {
        if breaker.answered() {
            let address = &breaker.address;
            tracing::info!(address, "the cache answers again");
            self.shared.pending.try_now.notify_one();
        }
    }

    fn not_answered(&self, breaker: &Breaker, error: &Error) {
        if breaker.not_answered(error) {
            let address = &breaker.address;
            tracing::warn!(address, "the cache does not answer: reads go around it");
        }
    }

    pub(super) fn read_call<'a>(&self, key: impl Into<Option<&'a Key>>) -> Call<'a> {
        let advice = SLOW_SERVER;
        let (key, limit) = (key.into(), self.operation_timeout());
        Call { key, limit, outer_limit: None, advice, while_open: WhileOpen::Fails, quiet: false }
    }

    pub(super) fn write_call<'a>(&self, key: impl Into<Option<&'a Key>>) -> Call<'a> {
        Call { while_open: WhileOpen::Probes, ..self.read_call(key) }
    }

    fn timed_out(&self, action: &str, limit: Duration, advice: &'static str) -> Error {
        let action = format!("the attempt to {action} at {}", self.shared.address);
        Error::Timeout { action, limit, advice }
    }

    pub(super) fn failed(&self, action: String, advice: &'static str, source: Cause) -> Error {
        Error::Backend { action, address: self.shared.address.clone(), advice, source }
    }
}

/// If the caller drops the future early, nobody records success or failure. A ping is sent in its place, so that callers with
/// short timeouts can still open the breaker.
struct CancelProbe<'a> {
    backend: &'a Backend,
    call: &'a Call<'a>,
    breaker: &'a Breaker,
    completed: bool,
}

impl Drop for CancelProbe<'_> {
    fn drop(&mut self) {
        if self.completed || self.call.while_open == WhileOpen::Passes || !self.breaker.may_ask() {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            let (backend, key) = (self.backend.clone(), self.call.key.cloned());
            runtime.spawn(async move { backend.ping(key.as_ref(), backend.operation_timeout()).await });
        }
    }
}

/// Fails outside of a runtime, where its timers and tasks would panic. Whether the runtime has timers, it doesn't tell.
pub(crate) fn check_runtime() -> Result<(), Error> {
    Handle::try_current()
        .map(drop)
        .map_err(|_| Error::config("there is no tokio runtime here: call this inside `#[tokio::main]` or `block_on`"))
}
