//! A refresh: loads anew although an entry is there, and promises that nothing older than its result stays.

use crate::protocol::Protocol;
use crate::state::{Late, Lease, Refresh, Stage, State};

/// A step of a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefreshStep {
    /// Sends an `acquire`.
    SendAcquire,
    /// The server carries out `SET L token NX`, or replaces a mark by the token.
    SetLease,
    /// Stops waiting for another load.
    StopWaiting,
    /// The loader reads the primary. Under a lease, the fill is sent.
    ReadPrimary,
    LoaderFails,
    Fill,
    Abandon,
    /// The command that was sent gets no answer in time: it may be carried out later, or never.
    TimeOut,
}

impl Protocol {
    pub(crate) fn refresh_steps(&self, state: &State, refresh: Refresh, mut step: impl FnMut(RefreshStep)) {
        let may_time_out = match refresh {
            Refresh::Waiting => {
                step(RefreshStep::SendAcquire);
                step(RefreshStep::StopWaiting);
                false
            }
            Refresh::Loading { .. } => {
                step(RefreshStep::ReadPrimary);
                if self.scope.faults.loader_failure {
                    step(RefreshStep::LoaderFails);
                }
                false
            }
            Refresh::Acquiring { .. } => {
                step(RefreshStep::SetLease);
                true
            }
            Refresh::Filling { .. } => {
                step(RefreshStep::Fill);
                true
            }
            Refresh::Abandoning { .. } => {
                step(RefreshStep::Abandon);
                true
            }
        };
        if may_time_out && state.losses_left > 0 {
            step(RefreshStep::TimeOut);
        }
    }

    /// Takes a step and returns what is next for the writer, or `None` if the refresh has failed.
    pub(crate) fn take_refresh_step(&self, state: &mut State, refresh: Refresh, step: RefreshStep) -> Option<Stage> {
        let next = match (refresh, step) {
            (Refresh::Waiting, RefreshStep::SendAcquire) => Refresh::Acquiring { token: self.new_token(state) },
            (Refresh::Waiting, RefreshStep::StopWaiting) => Refresh::Loading { lease: None },
            (Refresh::Acquiring { token }, RefreshStep::SetLease) => {
                let granted = match state.lease {
                    Some(Lease::Marked(mark)) => state.take_over(self.guards, token, mark),
                    _ => state.set_lease(token),
                };
                if granted { Refresh::Loading { lease: Some(token) } } else { Refresh::Waiting }
            }
            (Refresh::Loading { lease: Some(token) }, RefreshStep::ReadPrimary) => {
                Refresh::Filling { token, row: state.primary.row() }
            }
            // Nothing was stored, so the entry may be older than what was loaded.
            (Refresh::Loading { lease: None }, RefreshStep::ReadPrimary) => return Some(Stage::Invalidating),
            (Refresh::Loading { lease }, RefreshStep::LoaderFails) => Refresh::Abandoning { token: lease? },
            (Refresh::Filling { token, row }, RefreshStep::Fill) => {
                let accepted = state.fill(self.guards, token, Some(row));
                return Some(if accepted { Stage::Applied { promised: row.into() } } else { Stage::Invalidating });
            }
            (Refresh::Abandoning { token }, RefreshStep::Abandon) => {
                state.abandon(token);
                return None;
            }
            (_, RefreshStep::TimeOut) => {
                state.losses_left -= 1;
                if !matches!(refresh, Refresh::Abandoning { .. }) {
                    state.leave_write_behind(Stage::Refreshing(refresh));
                }
                state.leave_behind(Late::Abandon { token: refresh.token()? });
                match refresh {
                    Refresh::Acquiring { .. } => Refresh::Loading { lease: None },
                    Refresh::Filling { .. } => return Some(Stage::Invalidating),
                    _ => return None,
                }
            }
            (refresh, _) => refresh,
        };
        Some(Stage::Refreshing(next))
    }
}
