//! A flight, from the miss to the fill: `src/read/read_through.rs`.

use crate::guard::Guard;
use crate::protocol::Protocol;
use crate::state::{Breach, Call, Entry, FlightResult, Late, State, Step, Timestamp, Token};

/// A step of a flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlightStep {
    /// Takes a timestamp and sends an `acquire`.
    SendAcquire,
    /// The same again, because another process holds the lease.
    Poll,
    /// Stops waiting for another process' load.
    StopWaiting,
    /// The server carries out `SET L token NX`.
    SetLease,
    /// The server carries out the look at K: `EXISTS` in the same pipeline, or the second pipeline.
    Look,
    /// Takes a timestamp and starts the loader.
    BeginLoad,
    /// The loader reads the primary.
    ReadPrimary,
    LoaderFails,
    /// Takes a timestamp and sends a `fill`.
    SendFill,
    Fill,
    Abandon,
    /// The command that was sent gets no answer in time: it may be carried out later, or never.
    TimeOut,
    /// Leaves the map and hands its result to the leader and all followers.
    End,
}

impl Protocol {
    pub(crate) fn flight_steps(&self, state: &State, flight: usize, mut step: impl FnMut(FlightStep)) {
        let Some(under_way) = &state.readers[flight].flight else { return };
        let may_time_out = match under_way.step {
            Step::Starting => {
                step(FlightStep::SendAcquire);
                false
            }
            Step::Waiting => {
                step(FlightStep::StopWaiting);
                step(FlightStep::Poll);
                false
            }
            Step::Granted { .. } | Step::Bypassing => {
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
            Step::Ending(_) => {
                step(FlightStep::End);
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
        if step == FlightStep::End {
            return self.end_flight(state, flight);
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
                Step::Acquiring { token: self.token(state, flight), looked: self.timestamp(state, flight) }
            }
            (_, FlightStep::StopWaiting) => Step::Bypassing,
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
                let result = FlightResult { row: found, justified: looked };
                match (found, granted) {
                    (Some(_), true) => Step::Abandoning { token, result },
                    (Some(_), false) => Step::Ending(result),
                    (None, true) => Step::Granted { token, stood },
                    (None, false) => Step::Waiting,
                }
            }
            (Step::Granted { token, stood }, FlightStep::BeginLoad) => {
                if stood {
                    state.breach = Some(Breach::NeedlessLoad);
                }
                Step::Loading { lease: Some(token), began: self.timestamp(state, flight) }
            }
            (_, FlightStep::BeginLoad) => Step::Loading { lease: None, began: self.timestamp(state, flight) },
            (Step::Loading { lease, began }, FlightStep::ReadPrimary) => {
                let row = state.primary.row();
                match lease {
                    Some(token) => Step::Loaded { token, began, row },
                    None => Step::Ending(FlightResult { row: Some(row), justified: began }),
                }
            }
            (Step::Loading { lease, began }, FlightStep::LoaderFails) => {
                let result = FlightResult { row: None, justified: began };
                lease.map_or(Step::Ending(result), |token| Step::Abandoning { token, result })
            }
            (Step::Loaded { token, began, row }, FlightStep::SendFill) => {
                Step::Filling { token, began, sent: self.timestamp(state, flight), row }
            }
            (Step::Filling { token, began, sent, row }, FlightStep::Fill) => {
                let justified = if state.fill(self.guards, token, row) { sent } else { began };
                Step::Ending(FlightResult { row: Some(row), justified })
            }
            (Step::Abandoning { token, result }, FlightStep::Abandon) => {
                state.abandon(token);
                Step::Ending(result)
            }
            (now, FlightStep::TimeOut) => {
                state.losses_left -= 1;
                give_up(state, now)
            }
            (now, _) => now,
        }
    }

    fn timestamp(&self, state: &State, flight: usize) -> Timestamp {
        let mut timestamp = Timestamp::default();
        let called = self.in_process_of(flight).filter(|&reader| state.readers[reader].call != Call::Idle);
        called.for_each(|reader| timestamp.add(reader));
        timestamp
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

/// The next step of a flight that doesn't know the outcome of this one.
fn give_up(state: &mut State, step: Step) -> Step {
    let (token, command, next) = match step {
        Step::Acquiring { token, .. } => (token, Some(Late::Acquire { token }), Step::Bypassing),
        Step::Looking { token, .. } => (token, None, Step::Bypassing),
        Step::Filling { token, began, row, .. } => {
            let result = FlightResult { row: Some(row), justified: began };
            (token, Some(Late::Fill { token, row }), Step::Ending(result))
        }
        Step::Abandoning { token, result } => (token, None, Step::Ending(result)),
        step => return step,
    };
    command.into_iter().for_each(|command| state.leave_behind(command));
    state.leave_behind(Late::Abandon { token });
    next
}
