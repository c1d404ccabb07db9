//! A flight, from the miss to the fill: `src/read/read_through.rs`.

use crate::guard::Guard;
use crate::primary::Row;
use crate::protocol::Protocol;
use crate::server::Touched;
use crate::state::{Breach, Call, Flight, FlightResult, Late, Lease, Mark, Stage, State, Step, Timestamp, Token};

/// A step of a flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlightStep {
    /// Takes a timestamp and sends an `acquire`.
    SendAcquire,
    /// The same again, because another process holds the lease.
    Poll,
    /// Stops waiting for another process' load: the wait has been too long, or the load follows one that left a mark.
    StopWaiting,
    /// The server carries out `SET L token NX`.
    SetLease,
    /// The server replaces the mark at L by the token, if the mark is still there.
    TakeOver,
    /// The server carries out the look at K: `EXISTS` in the same pipeline, or the second pipeline.
    Look,
    /// Takes a timestamp and starts the loader.
    BeginLoad,
    /// The loader reads the primary.
    ReadPrimary,
    /// The loader reads the primary, and answers that the record that it was shown is unchanged.
    ReadUnchanged,
    /// In a cache that serves stale records in place of failed loads, the flight takes a timestamp and sends a `read`.
    LoaderFails,
    LookAgain,
    /// Takes a timestamp and sends a `fill`.
    SendFill,
    /// The same, with nothing to store.
    SendEmptyFill,
    Fill,
    /// Takes a timestamp and sends a `touch`.
    SendTouch,
    Touch,
    Abandon,
    Mark,
    /// The command that was sent gets no answer in time: it may be carried out later, or never.
    TimeOut,
    /// Leaves the map and hands its result to the leader and all followers. A flight that would give up does so only if they
    /// all have a stale record; otherwise it loads around the cache.
    End,
}

impl Protocol {
    pub(crate) fn flight_steps(&self, state: &State, flight: usize, mut step: impl FnMut(FlightStep)) {
        let Some(under_way) = &state.readers[flight].flight else { return };
        let loads = self.scope.loads;
        let mut may_time_out = false;
        let mut command = |command| {
            step(command);
            may_time_out = true;
        };
        match under_way.step {
            Step::Acquiring { .. } => command(FlightStep::SetLease),
            Step::TakingOver { .. } => command(FlightStep::TakeOver),
            Step::Looking { .. } => command(FlightStep::Look),
            Step::Filling { .. } => command(FlightStep::Fill),
            Step::Touching { .. } => command(FlightStep::Touch),
            Step::LookingAgain { .. } => command(FlightStep::LookAgain),
            Step::Abandoning { .. } => command(FlightStep::Abandon),
            Step::Marking { .. } => command(FlightStep::Mark),
            Step::Starting => step(FlightStep::SendAcquire),
            Step::Waiting => {
                step(FlightStep::StopWaiting);
                step(FlightStep::Poll);
            }
            Step::Granted { .. } | Step::Bypassing => step(FlightStep::BeginLoad),
            Step::Loading { shown, .. } => {
                step(FlightStep::ReadPrimary);
                if shown.is_some_and(|shown| shown.looks_like(state.primary.row())) {
                    step(FlightStep::ReadUnchanged);
                }
                if self.scope.faults.loader_failure {
                    step(FlightStep::LoaderFails);
                }
            }
            Step::Loaded { .. } => {
                step(FlightStep::SendFill);
                if loads.leave_marks {
                    step(FlightStep::SendEmptyFill);
                }
            }
            Step::Confirmed { .. } => step(FlightStep::SendTouch),
            Step::Ending(_) | Step::GivingUp => step(FlightStep::End),
        }
        if may_time_out && state.losses_left > 0 {
            step(FlightStep::TimeOut);
        }
    }

    pub(crate) fn take_flight_step(&self, state: &mut State, flight: usize, step: FlightStep) {
        let Some(under_way) = state.readers[flight].flight else { return };
        match (step, under_way.step) {
            // A caller without a stale record joined before the flight left the map.
            (FlightStep::End, Step::GivingUp) if !under_way.behind_stale => {
                state.readers[flight].flight = Some(Flight { open: false, step: Step::Bypassing, ..under_way });
            }
            (FlightStep::End, _) => self.end_flight(state, flight),
            (step, now) => {
                let next = match self.next(state, flight, now, step) {
                    Step::Bypassing if under_way.behind_stale => Step::GivingUp,
                    next => next,
                };
                state.readers[flight].flight = Some(Flight { step: next, ..under_way });
            }
        }
    }

    fn next(&self, state: &mut State, flight: usize, now: Step, step: FlightStep) -> Step {
        match (now, step) {
            (_, FlightStep::SendAcquire | FlightStep::Poll)
                if state.takeover.is_pending(self.scope.readers[flight]) && self.guards.has(Guard::AnswerCheck) =>
            {
                Step::Bypassing
            }
            (_, FlightStep::SendAcquire | FlightStep::Poll) => {
                let token = if self.guards.has(Guard::FreshTokens) {
                    self.new_token(state)
                } else {
                    Token::from(self.scope.readers[flight])
                };
                Step::Acquiring { token, looked: self.timestamp(state, flight) }
            }
            (_, FlightStep::StopWaiting) => Step::Bypassing,
            (Step::Acquiring { token, looked }, FlightStep::SetLease) => {
                let granted = state.set_lease(token);
                let stood = granted && state.live().is_some();
                Step::Looking { token, looked, granted, stood }
            }
            (Step::TakingOver { token, mark, looked }, FlightStep::TakeOver) => {
                let granted = state.take_over(self.guards, token, mark);
                let stood = state.live().is_some();
                if granted { Step::Looking { token, looked, granted, stood } } else { Step::Starting }
            }
            (Step::Looking { token, looked, granted, stood }, FlightStep::Look) => {
                self.looked(state, flight, token, looked, granted, stood)
            }
            (Step::Granted { token, stood, shown }, FlightStep::BeginLoad) => {
                if stood {
                    state.breach = Some(Breach::NeedlessLoad);
                }
                Step::Loading { lease: Some(token), began: self.timestamp(state, flight), shown }
            }
            (_, FlightStep::BeginLoad) => {
                Step::Loading { lease: None, began: self.timestamp(state, flight), shown: None }
            }
            (Step::Loading { lease, began, .. }, FlightStep::ReadPrimary) => {
                let row = state.primary.row();
                match lease {
                    Some(token) => Step::Loaded { token, began, row },
                    None => Step::Ending(FlightResult { row: Some(row), justified: began }),
                }
            }
            (Step::Loading { lease: Some(token), began, .. }, FlightStep::ReadUnchanged) => {
                Step::Confirmed { token, began, row: state.primary.row() }
            }
            (Step::Loading { lease, .. }, FlightStep::LoaderFails) if self.scope.loads.fall_back => {
                Step::LookingAgain { lease, looked: self.timestamp(state, flight) }
            }
            (Step::Loading { lease, began, .. }, FlightStep::LoaderFails) => self.failed(lease, began),
            (Step::LookingAgain { lease, looked }, FlightStep::LookAgain) => {
                match (lease, state.live().or_else(|| state.stale())) {
                    (_, None) => self.failed(lease, looked),
                    (None, found) => Step::Ending(FlightResult { row: found, justified: looked }),
                    (Some(token), found) => {
                        let result = FlightResult { row: found, justified: looked };
                        Step::Marking { token, mark: Mark::Failed, result }
                    }
                }
            }
            (Step::Loaded { token, began, row }, FlightStep::SendFill | FlightStep::SendEmptyFill) => {
                let (sent, stores) = (self.timestamp(state, flight), step == FlightStep::SendFill);
                Step::Filling { token, began, sent, row, stores }
            }
            (Step::Filling { token, began, sent, row, stores }, FlightStep::Fill) => {
                let accepted = state.fill(self.guards, token, stores.then_some(row));
                Step::Ending(FlightResult { row: Some(row), justified: if accepted { sent } else { began } })
            }
            (Step::Confirmed { token, began, row }, FlightStep::SendTouch) => {
                Step::Touching { token, began, sent: self.timestamp(state, flight), row }
            }
            (Step::Touching { token, began, sent, row }, FlightStep::Touch) => {
                match state.touch(self.guards, token, row) {
                    Touched::Renewed => Step::Ending(FlightResult { row: Some(row), justified: sent }),
                    Touched::Gone => Step::Loaded { token, began, row },
                    Touched::Fenced => Step::Ending(FlightResult { row: Some(row), justified: began }),
                }
            }
            (Step::Abandoning { token, result }, FlightStep::Abandon) => {
                state.abandon(token);
                Step::Ending(result)
            }
            (Step::Marking { token, mark, result }, FlightStep::Mark) => {
                state.mark(self.guards, token, mark);
                Step::Ending(result)
            }
            (now, FlightStep::TimeOut) => {
                state.losses_left -= 1;
                self.give_up(state, now)
            }
            (now, _) => now,
        }
    }

    /// The next step after the look at K. If the lease wasn't granted, L is read with K.
    fn looked(
        &self,
        state: &State,
        flight: usize,
        token: Token,
        looked: Timestamp,
        granted: bool,
        stood: bool,
    ) -> Step {
        let mark = match state.lease {
            Some(Lease::Marked(mark)) if !granted => Some(mark),
            _ => None,
        };
        let is_shown = !granted || self.guards.has(Guard::Recheck);
        let in_place_of_load = if mark == Some(Mark::Failed) { state.stale() } else { None };
        let found = state.live().filter(|_| is_shown).or(in_place_of_load);
        let result = FlightResult { row: found, justified: looked };
        match (found, granted, mark) {
            (Some(_), true, _) => Step::Abandoning { token, result },
            (Some(_), false, _) => Step::Ending(result),
            (None, true, _) => Step::Granted { token, stood, shown: self.shown(state, flight) },
            (None, false, Some(mark)) => Step::TakingOver { token, mark, looked },
            (None, false, None) => Step::Waiting,
        }
    }

    /// The stale record that the loader of a flight is shown.
    fn shown(&self, state: &State, flight: usize) -> Option<Row> {
        let found = if self.guards.has(Guard::GrantedRecord) { state.stale() } else { state.readers[flight].stale };
        found.filter(|_| self.scope.loads.may_be_unchanged)
    }

    /// The next step after a load that failed and that nothing is served in place of.
    fn failed(&self, lease: Option<Token>, began: Timestamp) -> Step {
        let result = FlightResult { row: None, justified: began };
        match lease {
            None => Step::Ending(result),
            Some(token) if self.scope.loads.leave_marks => Step::Marking { token, mark: Mark::Unstored, result },
            Some(token) => Step::Abandoning { token, result },
        }
    }

    fn timestamp(&self, state: &State, flight: usize) -> Timestamp {
        let mut timestamp = Timestamp::default();
        let called = self.in_process_of(flight).filter(|&reader| state.readers[reader].call != Call::Idle);
        called.for_each(|reader| timestamp.add(reader));
        timestamp
    }

    /// A token that is stored nowhere.
    pub(crate) fn new_token(&self, state: &State) -> Token {
        let in_steps = state.flights().filter_map(|flight| flight.step.token());
        let in_refreshes = state.writers.iter().filter_map(|writer| match writer.stage {
            Stage::Refreshing(refresh) => refresh.token(),
            _ => None,
        });
        let in_commands = state.late.iter().flatten().filter_map(Late::token);
        let elsewhere = state.takeover.other.and_then(|server| server.lease);
        let at_l = state.lease.into_iter().chain(elsewhere).filter_map(|lease| match lease {
            Lease::Held(token) => Some(token),
            Lease::Marked(_) => None,
        });
        let mut remembered = [false; Token::MAX as usize + 1];
        in_steps
            .chain(in_refreshes)
            .chain(in_commands)
            .chain(at_l)
            .for_each(|token| remembered[usize::from(token)] = true);
        (0..Token::MAX).find(|&token| !remembered[usize::from(token)]).unwrap_or(Token::MAX)
    }

    /// The next step of a flight that doesn't know the outcome of this one.
    fn give_up(&self, state: &mut State, step: Step) -> Step {
        let next = match step {
            Step::Acquiring { .. } | Step::TakingOver { .. } | Step::Looking { .. } => Step::Bypassing,
            Step::Filling { began, row, .. } | Step::Touching { began, row, .. } => {
                Step::Ending(FlightResult { row: Some(row), justified: began })
            }
            Step::LookingAgain { lease, looked } => return self.failed(lease, looked),
            Step::Abandoning { result, .. } | Step::Marking { result, .. } => Step::Ending(result),
            step => return step,
        };
        // An `abandon` follows, and may be lost too.
        if !matches!(step, Step::Abandoning { .. }) {
            state.leave_flight_behind(step);
        }
        if let Some(token) = step.token() {
            state.leave_behind(Late::Abandon { token });
        }
        next
    }
}
