//! A writer: a commit, and then `invalidate` or an update: `src/write/`, `src/backend/redis/update.rs`. Or a refresh.

use crate::protocol::Protocol;
use crate::refresh::RefreshStep;
use crate::scope::Write;
use crate::state::{Delete, Refresh, Stage, State, Transaction};

/// A step of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteStep {
    Commit,
    BeginRefresh,
    Refresh(RefreshStep),
    /// The server carries out one of the two commands of `invalidate`.
    Delete(Delete),
    /// WATCH, and the update's look at K.
    Look,
    /// MULTI .. EXEC; refused if K has changed since the look.
    Exec,
    /// The command that was sent fails, or gets no answer in time: it may be carried out later, or never. The writer
    /// calls again.
    Repeat,
    /// The same, but instead of an update the writer now calls `invalidate`, as the library does when a server refuses
    /// the transaction.
    InvalidateInstead,
    /// The call returns, after it has taken the flight of the key out of its process' map.
    Return,
    /// The write is cancelled: a command that was sent may still be carried out. The writer doesn't call again.
    Stop,
    /// An update is cancelled likewise, but the writer now calls `invalidate`.
    StopAndInvalidate,
}

impl Protocol {
    pub(crate) fn write_steps(&self, state: &State, writer: usize, mut step: impl FnMut(WriteStep)) {
        let own = &state.writers[writer];
        let [first, second] = self.guards.pipeline();
        let (may_fail, is_update) = match own.stage {
            Stage::Ready if usize::from(own.written) < self.scope.writers[writer].writes.len() => {
                if self.write_of(state, writer) == Write::Refresh {
                    step(WriteStep::BeginRefresh);
                } else if !self.scope.take_turns || state.writers.iter().all(|other| other.stage == Stage::Ready) {
                    step(WriteStep::Commit);
                }
                return;
            }
            Stage::Ready | Stage::Stopped => return,
            Stage::Refreshing(refresh) => {
                self.refresh_steps(state, refresh, |refresh| step(WriteStep::Refresh(refresh)));
                (false, false)
            }
            Stage::Invalidating => {
                step(WriteStep::Delete(first));
                (true, false)
            }
            Stage::Halfway { .. } => {
                step(WriteStep::Delete(second));
                (true, false)
            }
            Stage::Updating { .. } => {
                step(WriteStep::Look);
                (true, true)
            }
            Stage::Deciding(_) => {
                step(WriteStep::Exec);
                (true, true)
            }
            Stage::Applied { .. } => {
                step(WriteStep::Return);
                (false, false)
            }
        };
        if may_fail && state.losses_left > 0 {
            step(WriteStep::Repeat);
            if is_update {
                step(WriteStep::InvalidateInstead);
            }
        }
        if self.scope.faults.cancellation {
            step(WriteStep::Stop);
            if is_update {
                step(WriteStep::StopAndInvalidate);
            }
        }
    }

    pub(crate) fn take_write_step(&self, state: &mut State, writer: usize, step: WriteStep) {
        let own = state.writers[writer];
        let next = match (own.stage, step) {
            (stage, WriteStep::Commit) => match self.write_of(state, writer) {
                Write::Invalidate(change) => {
                    state.primary.commit(change);
                    Stage::Invalidating
                }
                Write::Update(change) => Stage::Updating { change, commit: state.primary.commit(change) },
                Write::Refresh => stage,
            },
            (_, WriteStep::BeginRefresh) => Stage::Refreshing(Refresh::Waiting),
            (Stage::Refreshing(refresh), WriteStep::Refresh(step)) => {
                self.take_refresh_step(state, refresh, step).unwrap_or_else(|| {
                    state.writers[writer].written += 1;
                    Stage::Ready
                })
            }
            (stage, WriteStep::Delete(what)) => {
                state.delete(self.guards, what);
                match stage {
                    Stage::Halfway { promised } => Stage::Applied { promised },
                    _ => Stage::Halfway { promised: state.primary.row().into() },
                }
            }
            (Stage::Updating { change, commit }, WriteStep::Look) => {
                Stage::Deciding(Transaction { change, commit, shown: state.entry, refused: false })
            }
            (Stage::Deciding(transaction), WriteStep::Exec) => {
                let Transaction { change, commit, .. } = transaction;
                if state.exec(self.guards, transaction) {
                    Stage::Applied { promised: change.floor(commit) }
                } else {
                    Stage::Updating { change, commit }
                }
            }
            (stage, WriteStep::Repeat | WriteStep::InvalidateInstead) => {
                state.losses_left -= 1;
                state.leave_write_behind(stage);
                match stage {
                    _ if step == WriteStep::InvalidateInstead => Stage::Invalidating,
                    // Both are sent again, as after any failure.
                    Stage::Halfway { .. } => Stage::Invalidating,
                    Stage::Deciding(Transaction { change, commit, .. }) => Stage::Updating { change, commit },
                    other => other,
                }
            }
            (Stage::Applied { promised }, WriteStep::Return) => {
                let process = self.scope.writers[writer].process;
                if self.scope.takes_over.is_none() {
                    state.floor.raise(promised);
                } else {
                    state.takeover.returned(process, promised, &mut state.floor);
                }
                if self.write_of(state, writer) != Write::Refresh {
                    self.forget_flights(state, process);
                }
                state.writers[writer].written += 1;
                Stage::Ready
            }
            (stage, WriteStep::Stop | WriteStep::StopAndInvalidate) => {
                state.leave_write_behind(stage);
                if step == WriteStep::Stop { Stage::Stopped } else { Stage::Invalidating }
            }
            (stage, _) => stage,
        };
        state.writers[writer].stage = next;
    }

    /// The write that is under way, or next.
    fn write_of(&self, state: &State, writer: usize) -> Write {
        self.scope.writers[writer].writes[usize::from(state.writers[writer].written)]
    }

    fn forget_flights(&self, state: &mut State, process: u8) {
        for (reader, &home) in self.scope.readers.iter().enumerate() {
            if let Some(flight) = &mut state.readers[reader].flight
                && home == process
                && !flight.bypass
            {
                flight.open = false;
            }
        }
    }
}
