//! A flight, from the miss to the fill: `src/lease.rs`.

use crate::guard::Guard;
use crate::protocol::Protocol;
use crate::state::{Breach, Call, Entry, Landing, Late, Stamp, State, Step, Token};

/// A step of a flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlightStep {
    /// Takes a stamp and sends an `acquire`.
    SendAcquire,
    /// The same again, because another holds the lease.
    Poll,
    /// Stops waiting for another's load.
    StopWaiting,
    /// `SET L token NX`, at the server.
    SetLease,
    /// The look at K: `EXISTS` in the same pipeline, or the second one.
    Look,
    /// Takes a stamp and starts its loader.
    BeginLoad,
    /// The loader reads the primary.
    ReadPrimary,
    LoaderFails,
    /// Takes a stamp and sends a `fill`.
    SendFill,
    Fill,
    Abandon,
    /// What is under way gets no answer in time: it may be carried out later, or never.
    TimeOut,
    /// Leaves the map and tells everyone aboard.
    Land,
}

impl Protocol {
    pub(crate) fn flight_steps(&self, state: &State, flight: usize, mut step: impl FnMut(FlightStep)) {
        let Some(under_way) = &state.readers[flight].flight else { return };
        let may_time_out = match under_way.step {
            Step::Departing => {
                step(FlightStep::SendAcquire);
                false
            }
            Step::Waiting => {
                step(FlightStep::StopWaiting);
                step(FlightStep::Poll);
                false
            }
            Step::Granted { .. } | Step::Rerouted => {
                step(FlightStep::BeginLoad);
                false
            }
            Step::Loading { .. } => {
                step(FlightStep::ReadPrimary);
                if self.scope.faults.loader_failure {
                    step(FlightStep::LoaderFails);
                }
                false
            }
            Step::Loaded { .. } => {
                step(FlightStep::SendFill);
                false
            }
            Step::Landing(_) => {
                step(FlightStep::Land);
                false
            }
            Step::Acquiring { .. } => {
                step(FlightStep::SetLease);
                true
            }
            Step::Looking { .. } => {
                step(FlightStep::Look);
                true
            }
            Step::Filling { .. } => {
                step(FlightStep::Fill);
                true
            }
            Step::Abandoning { .. } => {
                step(FlightStep::Abandon);
                true
            }
        };
        if may_time_out && state.losses_left > 0 {
            step(FlightStep::TimeOut);
        }
    }

    pub(crate) fn take_flight_step(&self, state: &mut State, flight: usize, step: FlightStep) {
        if step == FlightStep::Land {
            return self.land(state, flight);
        }
        let Some(under_way) = state.readers[flight].flight else { return };
        let next = self.next(state, flight, under_way.step, step);
        if let Some(under_way) = &mut state.readers[flight].flight {
            under_way.step = next;
        }
    }

    fn next(&self, state: &mut State, flight: usize, now: Step, step: FlightStep) -> Step {
        match (now, step) {
            (_, FlightStep::SendAcquire | FlightStep::Poll) => {
                Step::Acquiring { token: self.token(state, flight), looked: self.stamp(state, flight) }
            }
            (_, FlightStep::StopWaiting) => Step::Rerouted,
            (Step::Acquiring { token, looked }, FlightStep::SetLease) => {
                let granted = state.set_lease(token);
                let stood = granted && matches!(state.entry, Some(Entry::Whole(_)));
                Step::Looking { token, looked, granted, stood }
            }
            (Step::Looking { token, looked, granted, stood }, FlightStep::Look) => {
                let found = match state.entry {
                    Some(Entry::Whole(row)) if !granted || self.guards.has(Guard::Recheck) => Some(row),
                    Some(Entry::Whole(_) | Entry::Mixed) | None => None,
                };
                let landing = Landing { result: found, justified: looked };
                match (found, granted) {
                    (Some(_), true) => Step::Abandoning { token, landing },
                    (Some(_), false) => Step::Landing(landing),
                    (None, true) => Step::Granted { token, stood },
                    (None, false) => Step::Waiting,
                }
            }
            (Step::Granted { token, stood }, FlightStep::BeginLoad) => {
                if stood {
                    state.breach = Some(Breach::NeedlessLoad);
                }
                Step::Loading { lease: Some(token), began: self.stamp(state, flight) }
            }
            (_, FlightStep::BeginLoad) => Step::Loading { lease: None, began: self.stamp(state, flight) },
            (Step::Loading { lease, began }, FlightStep::ReadPrimary) => {
                let row = state.primary.row();
                match lease {
                    Some(token) => Step::Loaded { token, began, row },
                    None => Step::Landing(Landing { result: Some(row), justified: began }),
                }
            }
            (Step::Loading { lease, began }, FlightStep::LoaderFails) => {
                let landing = Landing { result: None, justified: began };
                lease.map_or(Step::Landing(landing), |token| Step::Abandoning { token, landing })
            }
            (Step::Loaded { token, began, row }, FlightStep::SendFill) => {
                Step::Filling { token, began, sent: self.stamp(state, flight), row }
            }
            (Step::Filling { token, began, sent, row }, FlightStep::Fill) => {
                let justified = if state.fill(self.guards, token, row) { sent } else { began };
                Step::Landing(Landing { result: Some(row), justified })
            }
            (Step::Abandoning { token, landing }, FlightStep::Abandon) => {
                state.abandon(token);
                Step::Landing(landing)
            }
            (now, FlightStep::TimeOut) => {
                state.losses_left -= 1;
                give_up(state, now)
            }
            (now, _) => now,
        }
    }

    fn stamp(&self, state: &State, flight: usize) -> Stamp {
        let mut stamp = Stamp::default();
        let called = self.housemates(flight).filter(|&reader| state.readers[reader].call != Call::Idle);
        called.for_each(|reader| stamp.add(reader));
        stamp
    }

    fn token(&self, state: &State, flight: usize) -> Token {
        if !self.guards.has(Guard::FreshTokens) {
            return Token::from(self.scope.readers[flight]);
        }
        let in_steps = state.flights().filter_map(|flight| flight.step.token());
        let in_commands = state.late.iter().flatten().filter_map(Late::token);
        let mut remembered = [false; Token::MAX as usize + 1];
        in_steps.chain(in_commands).chain(state.lease).for_each(|token| remembered[usize::from(token)] = true);
        (0..Token::MAX).find(|&token| !remembered[usize::from(token)]).unwrap_or(Token::MAX)
    }
}

/// What a flight does after a step whose outcome it doesn't know.
fn give_up(state: &mut State, step: Step) -> Step {
    let (token, command, next) = match step {
        Step::Acquiring { token, .. } => (token, Some(Late::Acquire { token }), Step::Rerouted),
        Step::Looking { token, .. } => (token, None, Step::Rerouted),
        Step::Filling { token, began, row, .. } => {
            let landing = Landing { result: Some(row), justified: began };
            (token, Some(Late::Fill { token, row }), Step::Landing(landing))
        }
        Step::Abandoning { token, landing } => (token, None, Step::Landing(landing)),
        step => return step,
    };
    command.into_iter().for_each(|command| state.leave_behind(command));
    state.leave_behind(Late::Abandon { token });
    next
}
