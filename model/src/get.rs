//! A get from its caller's side: `src/read/get.rs`.

use crate::guard::Guard;
use crate::primary::Row;
use crate::protocol::Protocol;
use crate::state::{Breach, Call, Entry, Flight, State, Step, Timestamp};

/// A step of a get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GetStep {
    /// Takes its timestamp.
    Start,
    /// Joins the flight of the key if there is one, otherwise sends a read of its own. In a cache that serves stale records it
    /// always reads.
    JoinOrRead,
    /// The server carries out its read of K.
    Read,
    ReadFails,
    /// Joins a flight, or leads a new one.
    JoinOrLead,
    /// Returns the stale record that its read found, before the flight has a result.
    ReturnStale,
    /// The future is dropped.
    Cancel,
}

impl Protocol {
    pub(crate) fn get_steps(&self, state: &State, reader: usize, mut step: impl FnMut(GetStep)) {
        let Some(own) = state.readers.get(reader) else { return };
        match own.call {
            Call::Idle if own.gets_left > 0 => step(GetStep::Start),
            Call::Idle => {}
            Call::InFlight(_) => {
                if self.scope.loads.serve_stale && own.stale.is_some() {
                    step(GetStep::ReturnStale);
                }
            }
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
                own.floor.raise(state.takeover.own_floor(self.scope.readers[reader]));
                own.call = Call::Called;
            }
            GetStep::JoinOrRead if state.takeover.is_pending(self.scope.readers[reader]) => {
                state.readers[reader].call = Call::OutOfReach;
            }
            GetStep::JoinOrRead => {
                let reads_first = self.scope.loads.serve_stale && self.guards.has(Guard::OwnRead);
                let joined = self.open_flight(state, reader, false).filter(|_| !reads_first);
                let leaders = joined.and_then(|leader| state.readers[leader].stale);
                let own = &mut state.readers[reader];
                own.stale = leaders.filter(|_| self.scope.loads.serve_stale);
                own.call = joined.map_or(Call::Reading, Call::InFlight);
            }
            GetStep::Read => match state.entry {
                Some(Entry::Whole(row)) => returns(state, reader, row),
                found => {
                    let is_used = self.scope.loads.serve_stale || !self.guards.has(Guard::GrantedRecord);
                    let own = &mut state.readers[reader];
                    own.stale = match found {
                        Some(Entry::Stale(row)) if is_used => Some(row),
                        _ => None,
                    };
                    own.call = Call::Missed;
                }
            },
            GetStep::ReadFails => {
                state.losses_left -= 1;
                state.readers[reader].call = Call::OutOfReach;
            }
            GetStep::JoinOrLead => {
                let bypass = state.readers[reader].call == Call::OutOfReach;
                let behind_stale = self.scope.loads.serve_stale && state.readers[reader].stale.is_some();
                let flight = self.open_flight(state, reader, bypass).unwrap_or(reader);
                let step = if bypass { Step::Bypassing } else { Step::Starting };
                let joined =
                    state.readers[flight].flight.get_or_insert(Flight { bypass, behind_stale, open: true, step });
                joined.behind_stale &= behind_stale;
                state.readers[reader].call = Call::InFlight(flight);
            }
            GetStep::ReturnStale => {
                if let Some(row) = state.readers[reader].stale {
                    returns(state, reader, row);
                }
            }
            GetStep::Cancel => {
                state.readers[reader].gets_left = 0;
                state.end_call(reader);
            }
        }
    }

    /// A flight ends: its leader and each follower take the result, return the stale record that they have, or go round
    /// again.
    pub(crate) fn end_flight(&self, state: &mut State, flight: usize) {
        let Some(Flight { bypass, step, .. }) = state.readers[flight].flight.take() else { return };
        let result = match step {
            Step::Ending(result) => Some(result),
            _ => None,
        };
        for reader in 0..self.scope.readers.len() {
            if state.readers[reader].call != Call::InFlight(flight) {
                continue;
            }
            let is_justified = |at: Timestamp| at.is_after(reader) || !self.guards.has(Guard::TimestampRule);
            let result = result.map(|result| result.row.map(|row| (row, is_justified(result.justified))));
            let stale = state.readers[reader].stale.filter(|_| self.scope.loads.serve_stale);
            match (result, stale) {
                (Some(Some((row, true))), _) => returns(state, reader, row),
                (Some(Some(_)), _) if reader == flight => state.breach = Some(Breach::OwnFlightTooLate),
                (_, Some(stale)) => returns(state, reader, stale),
                (None, None) => state.breach = Some(Breach::NoResult),
                (Some(None), None) => state.end_call(reader),
                (Some(Some(_)), None) => {
                    state.readers[reader].call = if bypass { Call::OutOfReach } else { Call::Missed };
                }
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
        state.breach = Some(Breach::TooOld);
    } else if !state.primary.ever_had(row) {
        state.breach = Some(Breach::Torn);
    }
    state.end_call(reader);
}
