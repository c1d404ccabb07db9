//! The protocol as a model for the checker: every order of its steps, with faults between any two of them.

use stateright::{Model, Property};

use crate::flight::FlightStep;
use crate::get::GetStep;
use crate::guard::Guards;
use crate::primary::{Floor, Primary};
use crate::properties;
use crate::scope::Scope;
use crate::state::{Call, Entry, Lease, MAX_LATE, MAX_READERS, MAX_WRITERS, Mark, Reader, Stage, State, Writer};
use crate::takeover::{Takeover, TakeoverStep};
use crate::writer::WriteStep;

/// The protocol within a scope.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Protocol {
    pub(crate) scope: Scope,
    pub(crate) guards: Guards,
}

/// A step of a reader, a flight or a writer, or a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Get(usize, GetStep),
    /// The flight that this reader leads.
    Flight(usize, FlightStep),
    Write(usize, WriteStep),
    LeaseExpires,
    EntryExpires,
    /// The record's TTL ends: it is stale from now on.
    EntryBecomesStale,
    /// The server carries out a command that its sender has given up on.
    LateCommand(usize),
    /// A process dies, with all its gets, flights and writers.
    Crash(u8),
    /// Another server takes the place of the one that the processes use.
    Takeover(TakeoverStep),
}

impl Action {
    /// Whether this brings a get closer to its end, without depending on anyone else or on a fault.
    pub(crate) fn makes_progress(self) -> bool {
        match self {
            Self::Get(_, step) => !matches!(step, GetStep::Start | GetStep::ReadFails | GetStep::Cancel),
            Self::Flight(_, step) => !matches!(step, FlightStep::Poll | FlightStep::LoaderFails | FlightStep::TimeOut),
            Self::Write(..) | Self::LeaseExpires | Self::EntryExpires | Self::EntryBecomesStale => false,
            Self::LateCommand(_) | Self::Crash(_) | Self::Takeover(_) => false,
        }
    }
}

impl Protocol {
    /// The readers of the same process, including this one.
    pub(crate) fn in_process_of(&self, reader: usize) -> impl Iterator<Item = usize> {
        let readers = self.scope.readers;
        let home = readers.get(reader);
        (0..readers.len()).filter(move |&other| readers.get(other) == home)
    }

    pub(crate) fn take(&self, state: &mut State, action: Action) {
        match action {
            Action::Get(reader, step) => {
                state.at_server_of(self.scope.readers[reader], |state| self.take_get_step(state, reader, step));
            }
            Action::Flight(flight, step) => {
                state.at_server_of(self.scope.readers[flight], |state| self.take_flight_step(state, flight, step));
            }
            Action::Write(writer, step) => {
                let process = self.scope.writers[writer].process;
                state.at_server_of(process, |state| self.take_write_step(state, writer, step));
            }
            Action::LeaseExpires => state.lease = None,
            Action::EntryExpires => state.put(None),
            Action::EntryBecomesStale => state.become_stale(),
            Action::LateCommand(index) => {
                if let Some(late) = state.late[index].take() {
                    state.late.sort_unstable();
                    state.deliver(self.guards, late);
                }
            }
            Action::Crash(process) => self.crash(state, process),
            Action::Takeover(step) => self.take_takeover_step(state, step),
        }
    }

    fn crash(&self, state: &mut State, process: u8) {
        state.crashes_left -= 1;
        for (reader, _) in self.scope.readers.iter().enumerate().filter(|&(_, &home)| home == process) {
            state.readers[reader].gets_left = 0;
            if let Some(flight) = state.readers[reader].flight.take() {
                state.leave_flight_behind(flight.step);
            }
            state.end_call(reader);
        }
        for (writer, _) in self.scope.writers.iter().enumerate().filter(|(_, plan)| plan.process == process) {
            state.leave_write_behind(state.writers[writer].stage);
            state.writers[writer].stage = Stage::Stopped;
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    /// The cache is empty or holds the primary's row, which may be stale; or a load has left a mark.
    fn init_states(&self) -> Vec<State> {
        let primary = Primary::new(self.scope.row_exists);
        let idle = Reader { gets_left: 0, call: Call::Idle, floor: Floor::default(), stale: None, flight: None };
        let mut readers = [idle; MAX_READERS];
        readers[..self.scope.readers.len()].iter_mut().for_each(|reader| reader.gets_left = self.scope.gets);
        let empty = State {
            primary,
            entry: None,
            lease: None,
            readers,
            writers: [Writer { written: 0, stage: Stage::Ready }; MAX_WRITERS],
            late: [None; MAX_LATE],
            floor: Floor::default(),
            crashes_left: self.scope.faults.crashes,
            losses_left: self.scope.faults.losses,
            takeover: Takeover::default(),
            breach: None,
        };
        let mut states = vec![empty, State { entry: Some(Entry::Whole(primary.row())), ..empty }];
        if self.scope.loads.know_stale() && self.scope.row_exists {
            states.push(State { entry: Some(Entry::Stale(primary.row())), ..empty });
        }
        if self.scope.loads.leave_marks {
            states.push(State { lease: Some(Lease::Marked(Mark::Unstored)), ..empty });
        }
        states
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.breach.is_some() {
            return;
        }
        let faults = self.scope.faults;
        for reader in 0..self.scope.readers.len() {
            self.get_steps(state, reader, |step| actions.push(Action::Get(reader, step)));
            self.flight_steps(state, reader, |step| actions.push(Action::Flight(reader, step)));
        }
        for writer in 0..self.scope.writers.len() {
            self.write_steps(state, writer, |step| actions.push(Action::Write(writer, step)));
        }
        if faults.expiry && state.lease.is_some() {
            actions.push(Action::LeaseExpires);
        }
        if faults.expiry && state.entry.is_some() {
            actions.push(Action::EntryExpires);
        }
        if self.scope.loads.know_stale() && state.live().is_some_and(|row| row.present) {
            actions.push(Action::EntryBecomesStale);
        }
        let late = state.late.iter().enumerate().filter(|(_, late)| late.is_some());
        actions.extend(late.map(|(index, _)| Action::LateCommand(index)));
        if state.crashes_left > 0 {
            actions.extend(self.scope.processes().map(Action::Crash));
        }
        self.takeover_steps(state, |step| actions.push(Action::Takeover(step)));
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        self.take(&mut next, action);
        next.forget_spent_commands(self.guards);
        // A takeover lowers the floors of gets that are under way.
        if self.scope.takes_over.is_none() {
            next.forget_promises();
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::of(&self.scope)
    }
}
