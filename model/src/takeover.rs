//! Another server takes the place of the one that the processes use, with an older state: a replica that is promoted, or the same
//! server after a restart from a snapshot.
//!
//! Each process moves to a promoted replica in its own time. Until then its commands go to the old server, which lives on. So
//! there are two servers, and before a step of a process that has moved they are swapped.
//!
//! A process that moves gets no more replies from the old server. It treats its own writes as pending: it reads around the
//! cache until it has invalidated their keys anew. A restart moves all processes at once, and all read around the cache until
//! one of them has swept the server.

use crate::guard::Guard;
use crate::primary::Floor;
use crate::protocol::Protocol;
use crate::scope::Place;
use crate::state::{Call, Delete, Entry, FlightResult, Lease, MAX_LATE, Stage, State, Step};

const MAX_PROCESSES: usize = 3;

/// The entry and the lease at one server, and the promise of the writes that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Server {
    pub(crate) entry: Option<Entry>,
    pub(crate) lease: Option<Lease>,
    floor: Floor,
}

/// The progress of a takeover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Takeover {
    /// First the state of the replica once it gets no more of what is written, or the snapshot; then the promoted replica.
    pub(crate) other: Option<Server>,
    pub(crate) has_happened: bool,
    /// The processes that use the new server.
    moved: Processes,
    /// The processes that read around the cache, because the entry may be older than one of their writes.
    pending: Processes,
    /// Whether the lease is deleted already, and the entry is next.
    is_halfway: Processes,
    /// The oldest state that a get of each process may return, after its own writes.
    own: [Floor; MAX_PROCESSES],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Processes(u8);

impl Processes {
    const ALL: Self = Self(u8::MAX);

    fn has(self, process: u8) -> bool {
        self.0 & (1 << process) != 0
    }

    fn set(&mut self, process: u8, is_in: bool) {
        self.0 = self.0 & !(1 << process) | u8::from(is_in) << process;
    }
}

/// A step of a takeover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TakeoverStep {
    /// The replica gets no more of what is written; or the snapshot is written.
    FallBehind,
    /// The replica is promoted, or the server starts again with its snapshot.
    TakeOver,
    /// A process leaves the old server.
    Move(u8),
    /// A process invalidates what it has written. Both commands of an `invalidate` are a step each.
    Replay(u8),
    /// One process sweeps the server that has started again: first the lease, then the entry.
    Sweep,
}

impl Takeover {
    /// Whether this process' own reads and leases must not be used.
    pub(crate) fn is_pending(&self, process: u8) -> bool {
        self.pending.has(process)
    }

    pub(crate) fn own_floor(&self, process: u8) -> Floor {
        self.own[usize::from(process)]
    }

    /// A write of this process has returned. Its server promises the same to all, unless the server is a new one that may not
    /// have it.
    pub(crate) fn returned(&mut self, process: u8, promised: Floor, everyone: &mut Floor) {
        self.own[usize::from(process)].raise(promised);
        if !self.is_pending(process) {
            everyone.raise(promised);
        }
    }
}

impl State {
    /// Lets a step act at the server that this process uses.
    pub(crate) fn at_server_of(&mut self, process: u8, step: impl FnOnce(&mut Self)) {
        let is_elsewhere = self.takeover.moved.has(process);
        if is_elsewhere {
            self.swap_servers();
        }
        step(self);
        if is_elsewhere {
            self.swap_servers();
        }
    }

    fn server(&self) -> Server {
        Server { entry: self.entry, lease: self.lease, floor: self.floor }
    }

    fn swap_servers(&mut self) {
        if let Some(other) = self.takeover.other.replace(self.server()) {
            Server { entry: self.entry, lease: self.lease, floor: self.floor } = other;
        }
    }
}

impl Protocol {
    pub(crate) fn takeover_steps(&self, state: &State, mut step: impl FnMut(TakeoverStep)) {
        let (Some(place), takeover) = (self.scope.takes_over, &state.takeover) else { return };
        match (takeover.has_happened, takeover.other) {
            (false, None) => return step(TakeoverStep::FallBehind),
            (false, Some(_)) => return step(TakeoverStep::TakeOver),
            (true, _) => {}
        }
        match place {
            Place::Replica => {
                for process in self.scope.all_processes() {
                    if !takeover.moved.has(process) {
                        step(TakeoverStep::Move(process));
                    } else if takeover.is_pending(process) {
                        step(TakeoverStep::Replay(process));
                    }
                }
            }
            Place::Snapshot if takeover.pending != Processes::default() => step(TakeoverStep::Sweep),
            Place::Snapshot => {}
        }
    }

    pub(crate) fn take_takeover_step(&self, state: &mut State, step: TakeoverStep) {
        match step {
            TakeoverStep::FallBehind => state.takeover.other = Some(state.server()),
            TakeoverStep::TakeOver => {
                state.takeover.has_happened = true;
                if self.scope.takes_over == Some(Place::Snapshot) {
                    // The promises stay: whoever reads reads around the cache until the sweep.
                    if let Some(Server { entry, lease, .. }) = state.takeover.other.take() {
                        (state.entry, state.lease) = (entry, lease);
                    }
                    state.late = [None; MAX_LATE];
                    if self.guards.has(Guard::Replay) {
                        state.takeover.pending = Processes::ALL;
                    }
                    self.scope.all_processes().for_each(|process| self.lose_connection(state, process));
                }
            }
            TakeoverStep::Move(process) => {
                let has_written = self.scope.writers.iter().zip(&state.writers).any(|(plan, writer)| {
                    plan.process == process && (writer.written > 0 || writer.stage != Stage::Ready)
                });
                state.takeover.moved.set(process, true);
                state.takeover.pending.set(process, has_written && self.guards.has(Guard::Replay));
                self.lose_connection(state, process);
                self.lower_floors(state, process);
            }
            TakeoverStep::Replay(process) => {
                let is_second = state.takeover.is_halfway.has(process);
                state.takeover.is_halfway.set(process, !is_second);
                let [first, second] = self.guards.pipeline();
                state.at_server_of(process, |state| state.delete(self.guards, if is_second { second } else { first }));
                if is_second {
                    state.takeover.pending.set(process, false);
                    let own = state.takeover.own_floor(process);
                    state.at_server_of(process, |state| state.floor.raise(own));
                }
            }
            TakeoverStep::Sweep => {
                let is_second = state.takeover.is_halfway == Processes::ALL;
                state.takeover.is_halfway = if is_second { Processes::default() } else { Processes::ALL };
                state.delete(self.guards, if is_second { Delete::Entry } else { Delete::Lease });
                if is_second {
                    state.takeover.pending = Processes::default();
                }
            }
        }
    }

    /// Commands under way get no reply, and are sent again over the new connection where that is safe. The answers are not used
    /// if they may be older than a write of the process.
    fn lose_connection(&self, state: &mut State, process: u8) {
        let is_checked = self.guards.has(Guard::AnswerCheck);
        let is_refused = state.takeover.is_pending(process) && is_checked;
        for reader in (0..self.scope.readers.len()).filter(|&reader| self.scope.readers[reader] == process) {
            let own = &mut state.readers[reader];
            if own.call == Call::Reading && is_refused {
                own.call = Call::OutOfReach;
            }
            let Some(flight) = &mut own.flight else { continue };
            flight.step = match flight.step {
                Step::Acquiring { .. } | Step::TakingOver { .. } | Step::Looking { .. } if is_refused => {
                    Step::Bypassing
                }
                Step::TakingOver { token, looked, .. } | Step::Looking { token, looked, .. } => {
                    Step::Acquiring { token, looked }
                }
                // The record that a loader was shown may not be the one that is there now, so a confirmed one is filled.
                Step::Granted { token, shown, .. } => {
                    Step::Granted { token, stood: false, shown: shown.filter(|_| !is_checked) }
                }
                Step::Loading { lease, began, .. } if is_checked => Step::Loading { lease, began, shown: None },
                Step::Confirmed { token, began, row } if is_checked => Step::Loaded { token, began, row },
                Step::Filling { began, row, .. } | Step::Touching { began, row, .. } => {
                    Step::Ending(FlightResult { row: Some(row), justified: began })
                }
                other => other,
            };
        }
        for writer in (0..self.scope.writers.len()).filter(|&writer| self.scope.writers[writer].process == process) {
            let stage = &mut state.writers[writer].stage;
            if matches!(stage, Stage::Halfway { .. } | Stage::Deciding(_)) {
                *stage = Stage::Invalidating;
            }
        }
    }

    /// Gets that have started at the old server may see what the new one has.
    fn lower_floors(&self, state: &mut State, process: u8) {
        let own = state.takeover.own_floor(process);
        let mut promised = state.takeover.other.map_or_else(Floor::default, |server| server.floor);
        promised.raise(own);
        for (reader, _) in self.scope.readers.iter().enumerate().filter(|&(_, &home)| home == process) {
            state.readers[reader].floor.lower(promised);
        }
    }
}
