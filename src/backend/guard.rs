//! The one place that every step passes: it asks the circuit breaker, sets the deadline, and says in the error what was
//! tried, where, and what to do.

use std::pin::Pin;
use std::sync::Arc;
#[cfg(feature = "testing")]
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::{Handle, Id};

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
    pub(super) limit: Duration,
    pub(super) advice: &'static str,
    pub(super) while_open: WhileOpen,
    /// Whether it is one round trip: if it takes too long, nothing answers.
    pub(super) one_trip: bool,
    /// Whether somebody else tells of its failures, many at a time.
    pub(super) quiet: bool,
}

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
        let runtime = current_runtime()?;
        let of_server = call.key.and_then(|key| self.breaker_of_server(key));
        let breaker = of_server.as_deref().unwrap_or(&self.shared.breaker);
        if !self.admits(call, breaker) {
            let advice = "it has not answered lately, and is left alone until it does";
            return Err(self.failed(action(), advice, breaker.cause()));
        }
        let mut patience = Patience { backend: self, call, breaker, kept: false };
        let ended = if self.may_wait() { within(call.limit, runtime, step).await } else { Some(step.await) };
        patience.kept = true;
        if ended.is_none()
            && let Store::Redis(redis) = &self.shared.store
        {
            redis.timed_out(call.key, call.limit);
        }
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
                (self.failed(action(), advice, Cause::new(cause)), Some(answered))
            }
            Some(Err(StepError::TimedOut)) => (self.timed_out(&action(), &self.read_call(call.key)), Some(false)),
            None => (self.timed_out(&action(), call), call.one_trip.then_some(false)),
        };
        if !call.quiet {
            let (address, cause) = (&breaker.address, std::error::Error::source(&error).map(ToString::to_string));
            tracing::warn!(address, cause, "a step on the cache failed");
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

    /// Whether a step can take time: in this process' memory none does, and a deadline would only cost a look at the clock.
    fn may_wait(&self) -> bool {
        #[cfg(feature = "__proof")]
        if self.shared.rig.is_some() {
            return true;
        }
        !matches!(self.shared.store, Store::Memory(_))
    }

    fn breaker_of_server(&self, key: &Key) -> Option<Arc<Breaker>> {
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
        let advice = "check that the server is up and not overloaded, or raise operation_timeout";
        let (key, limit) = (key.into(), self.operation_timeout());
        Call { key, limit, advice, while_open: WhileOpen::Fails, one_trip: true, quiet: false }
    }

    /// Of a write that is tried again.
    pub(super) fn background_call<'a>(&self, key: &'a Key) -> Call<'a> {
        Call { quiet: true, ..self.write_call(key) }
    }

    pub(super) fn write_call<'a>(&self, key: impl Into<Option<&'a Key>>) -> Call<'a> {
        Call { while_open: WhileOpen::Probes, ..self.read_call(key) }
    }

    fn timed_out(&self, action: &str, call: &Call<'_>) -> Error {
        let action = format!("the attempt to {action} at {}", self.shared.address);
        Error::Timeout { action, limit: call.limit, advice: call.advice }
    }

    pub(super) fn failed(&self, action: String, advice: &'static str, source: Cause) -> Error {
        Error::Backend { action, address: self.shared.address.clone(), advice, source }
    }
}

/// Of a step's caller. Who loses it before the step ends doesn't learn whether the server answers; so a ping finds out, or
/// hurried callers would try a dead server for ever.
struct Patience<'a> {
    backend: &'a Backend,
    call: &'a Call<'a>,
    breaker: &'a Breaker,
    kept: bool,
}

impl Drop for Patience<'_> {
    fn drop(&mut self) {
        if self.kept || self.call.while_open == WhileOpen::Passes || !self.breaker.may_ask() {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            let (backend, key) = (self.backend.clone(), self.call.key.cloned());
            runtime.spawn(async move { backend.ping(key.as_ref(), backend.operation_timeout()).await });
        }
    }
}

/// Which runtime this is: outside of one its timers and tasks would panic. Whether the runtime has timers, it doesn't tell.
pub(crate) fn current_runtime() -> Result<Id, Error> {
    let current = Handle::try_current();
    current
        .map(|runtime| runtime.id())
        .map_err(|_| Error::config("there is no tokio runtime here: call this inside `#[tokio::main]` or `block_on`"))
}
