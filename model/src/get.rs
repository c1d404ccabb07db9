//! A get from its caller's side: `src/read/get.rs`.

use crate::guard::Guard;
use crate::protocol::Protocol;
use crate::state::{Breach, Call, Entry, Flight, Row, State, Step};

/// A step of a get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GetStep {
    /// Takes its timestamp.
    Start,
    /// Joins the flight of the key if there is one, otherwise sends a read of its own.
    JoinOrRead,
    /// The server carries out its read of K.
    Read,
    ReadFails,
    /// Joins a flight, or leads a new one.
    JoinOrLead,
    /// The future is dropped.
    Cancel,
}

impl Protocol {
    pub(crate) fn get_steps(&self, state: &State, reader: usize, mut step: impl FnMut(GetStep)) {
        let Some(own) = state.readers.get(reader) else { return };
        match own.call {
            Call::Idle if own.gets_left > 0 => step(GetStep::Start),
            Call::Idle | Call::InFlight(_) => {}
            Call::Called => step(GetStep::JoinOrRead),
            Call::Reading => {
                step(GetStep::Read);
                if state.losses_left > 0 {
                    step(GetStep::ReadFails);
                }
            }
            Call::Missed | Call::OutOfReach => step(GetStep::JoinOrLead),
        }
        if self.scope.faults.cancellation && own.call != Call::Idle {
            step(GetStep::Cancel);
        }
    }

    pub(crate) fn take_get_step(&self, state: &mut State, reader: usize, step: GetStep) {
        match step {
            GetStep::Start => {
                let own = &mut state.readers[reader];
                own.gets_left -= 1;
                own.floor = state.floor;
                own.call = Call::Called;
            }
            GetStep::JoinOrRead => {
                let joined = self.open_flight(state, reader, false);
                state.readers[reader].call = joined.map_or(Call::Reading, Call::InFlight);
            }
            GetStep::Read => match state.entry {
                Some(Entry::Whole(row)) => returns(state, reader, row),
                Some(Entry::Mixed) | None => state.readers[reader].call = Call::Missed,
            },
            GetStep::ReadFails => {
                state.losses_left -= 1;
                state.readers[reader].call = Call::OutOfReach;
            }
            GetStep::JoinOrLead => {
                let bypass = state.readers[reader].call == Call::OutOfReach;
                let flight = self.open_flight(state, reader, bypass).unwrap_or_else(|| {
                    let step = if bypass { Step::Bypassing } else { Step::Starting };
                    state.readers[reader].flight = Some(Flight { bypass, open: true, step });
                    reader
                });
                state.readers[reader].call = Call::InFlight(flight);
            }
            GetStep::Cancel => {
                state.readers[reader].gets_left = 0;
                state.end_call(reader);
            }
        }
    }

    /// A flight ends: its leader and each follower take the result, or go round again.
    pub(crate) fn end_flight(&self, state: &mut State, flight: usize) {
        let Some(Flight { bypass, step: Step::Ending(result), .. }) = state.readers[flight].flight.take() else {
            return;
        };
        for reader in 0..self.scope.readers.len() {
            if state.readers[reader].call != Call::InFlight(flight) {
                continue;
            }
            let may_take = result.justified.is_after(reader) || !self.guards.has(Guard::TimestampRule);
            match result.row {
                None => state.end_call(reader),
                Some(row) if may_take => returns(state, reader, row),
                Some(_) if reader == flight => state.breach = Some(Breach::OwnFlightTooLate),
                Some(_) => state.readers[reader].call = if bypass { Call::OutOfReach } else { Call::Missed },
            }
        }
    }

    /// The flight that a call of this reader joins, by its leader.
    fn open_flight(&self, state: &State, reader: usize, bypass: bool) -> Option<usize> {
        let is_joined = |flight: &Flight| flight.open && flight.bypass == bypass;
        self.in_process_of(reader).find(|&leader| state.readers[leader].flight.as_ref().is_some_and(is_joined))
    }
}

fn returns(state: &mut State, reader: usize, row: Row) {
    if !row.reaches(state.readers[reader].floor) {
        state.breach = Some(Breach::Stale);
    } else if !state.primary.ever_had(row) {
        state.breach = Some(Breach::Torn);
    }
    state.end_call(reader);
}
