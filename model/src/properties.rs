//! The promises of the protocol, and the events that a search has to reach for the promises to mean anything.
//!
//! *No dead end* is checked from every reachable state: if from then on there are no faults, nothing expires, no writer acts,
//! no get starts, and flights don't wait for other processes' loads, all gets that are under way still end.

use stateright::{Model, Property};

use crate::primary::Row;
use crate::protocol::Protocol;
use crate::scope::{Scope, Write};
use crate::state::{Breach, Call, Entry, Late, Lease, MAX_READERS, Refresh, Stage, State, Step, Token};

/// No get returns older data than is promised by the writes that returned before it started.
pub(crate) const FRESH: &str = "fresh";
/// No entry is partial, and no get returns a record that the primary never had.
pub(crate) const WHOLE: &str = "whole";
/// No load starts under a lease while a live entry is there that was there before the grant, and no grant takes the lease
/// of another load away.
pub(crate) const ONE_LOAD: &str = "one load";
/// An unchanged answer renews no other record than the one that its loader has confirmed.
pub(crate) const CONFIRMED: &str = "confirmed";
/// From every state, every get can still end.
pub(crate) const NO_DEAD_END: &str = "no dead end";
/// No call is too late for a flight that it leads, and no flight leaves a call with nothing to return.
pub(crate) const OWN_FLIGHT: &str = "own flight";

/// The promises, and the events that the scope has to reach.
pub(crate) fn of(scope: &Scope) -> Vec<Property<Protocol>> {
    let mut properties = vec![
        Property::always(FRESH, |_, state: &State| state.breach != Some(Breach::TooOld)),
        Property::always(WHOLE, |_, state: &State| {
            state.breach != Some(Breach::Torn) && state.entry != Some(Entry::Mixed)
        }),
        Property::always(ONE_LOAD, |_, state: &State| {
            !matches!(state.breach, Some(Breach::NeedlessLoad | Breach::LeaseTaken))
        }),
        Property::always(CONFIRMED, |_, state: &State| state.breach != Some(Breach::WrongRecordRenewed)),
        Property::always(NO_DEAD_END, can_end),
        Property::always(OWN_FLIGHT, |_, state: &State| {
            !matches!(state.breach, Some(Breach::OwnFlightTooLate | Breach::NoResult))
        }),
        Property::sometimes("a hit", |_, state: &State| finds(state, true)),
        Property::sometimes("a fill", |_, state: &State| fills(state, true)),
        Property::sometimes("an entry that is found under a new lease, which is given back", |_, state: &State| {
            let hands_back = |step| matches!(step, Step::Looking { granted: true, .. }) && state.live().is_some();
            state.flights().any(|flight| hands_back(flight.step))
        }),
        Property::sometimes("a load around the cache", |_, state: &State| {
            state.flights().any(|flight| matches!(flight.step, Step::Loading { lease: None, .. }))
        }),
        Property::sometimes("a read that waited for another's load", |_, state: &State| {
            state.flights().any(|flight| flight.step == Step::Waiting) && state.live().is_some()
        }),
    ];
    let mut sometimes = |when: bool, name, condition| {
        if when {
            properties.push(Property::sometimes(name, condition));
        }
    };
    let (loads, faults) = (scope.loads, scope.faults);
    let writes = || scope.writes().filter(|write| *write != Write::Refresh);
    let updates = || writes().any(|write| matches!(write, Write::Update(_)));
    let invalidates = || writes().any(|write| matches!(write, Write::Invalidate(_)));
    let moves_row = |write| matches!(write, Write::Update(change) | Write::Invalidate(change) if change.moves_row());
    sometimes(writes().next().is_some(), "a fenced fill", |_, state| fills(state, false));
    sometimes(writes().any(moves_row), "a not-found hit", |_, state| finds(state, false));
    sometimes(scope.share(), "a coalesced read", |_, state| {
        ending(state).any(|(flight, _)| state.callers_of(flight).count() > 1)
    });
    sometimes(scope.share(), "a call that goes round again", |_, state| {
        ending(state).any(|(flight, justified)| state.callers_of(flight).any(|reader| !justified(reader)))
    });
    sometimes(invalidates(), "a fill within an invalidation", |_, state| is_halfway(state) && fills(state, true));
    sometimes(updates(), "an update in place", |_, state| {
        transactions(state).any(|(shown, refused)| !refused && shown.is_some_and(|row| row.present))
    });
    sometimes(updates(), "a refused transaction", |_, state| transactions(state).any(|(_, refused)| refused));
    sometimes(faults.crashes > 0, "a lease that outlives its holder", |_, state| {
        held(state).is_some() && state.flights().all(|flight| flight.step.token() != held(state))
    });
    sometimes(faults.losses > 0, "a late command", |_, state| state.late.iter().any(Option::is_some));
    sometimes(faults.losses > 0 && invalidates(), "half of an invalidation that comes late", |_, state| {
        state.late.contains(&Some(Late::SecondDelete)) && state.live().is_some()
    });
    sometimes(loads.leave_marks, "a mark that is about to be taken over", |_, state| takes_over(state, true));
    sometimes(loads.leave_marks, "a mark that another has taken over", |_, state| takes_over(state, false));
    sometimes(loads.leave_marks, "a load with nothing to store", |_, state| {
        state.flights().any(|flight| matches!(flight.step, Step::Filling { stores: false, .. }))
    });
    sometimes(loads.may_be_unchanged, "a record that is renewed", |_, state| {
        touches(state).any(|is_holder| is_holder && state.stale().is_some())
    });
    sometimes(loads.may_be_unchanged, "a touch that finds no entry", |_, state| {
        touches(state).any(|is_holder| is_holder && state.entry.is_none())
    });
    sometimes(loads.may_be_unchanged && writes().next().is_some(), "a fenced touch", |_, state| {
        touches(state).any(|is_holder| !is_holder)
    });
    sometimes(loads.serve_stale, "a stale record that its finder may return", |_, state| {
        state.readers.iter().any(|reader| matches!(reader.call, Call::InFlight(_)) && reader.stale.is_some())
    });
    sometimes(loads.serve_stale, "a flight that outlives the calls that have a stale record", |_, state| {
        (0..MAX_READERS).any(|flight| {
            state.readers[flight].flight.is_some_and(|flight| flight.behind_stale)
                && state.callers_of(flight).all(|reader| state.readers[reader].stale.is_none())
        })
    });
    sometimes(loads.serve_stale && scope.share(), "a flight that doesn't give up because of a follower", |_, state| {
        (0..MAX_READERS).any(|flight| {
            state.readers[flight].flight.is_some_and(|flight| flight.step == Step::GivingUp && !flight.behind_stale)
        })
    });
    sometimes(loads.fall_back && faults.loader_failure, "a stale record in place of a failed load", |_, state| {
        let serves = |step| matches!(step, Step::LookingAgain { .. }) && state.stale().is_some();
        state.flights().any(|flight| serves(flight.step))
    });
    let refreshes = scope.writes().any(|write| write == Write::Refresh);
    sometimes(refreshes, "a refresh that replaces an entry", |_, state| {
        state.live().is_some() && refreshing(state).any(|token| token == held(state))
    });
    sometimes(refreshes, "a refresh that is fenced", |_, state| refreshing(state).any(|token| token != held(state)));
    sometimes(scope.takes_over.is_some(), "an entry that has come back and is read around", |_, state| {
        state.takeover.has_happened
            && (0..3).any(|process| state.takeover.is_pending(process))
            && (state.entry.is_some() || state.takeover.other.is_some_and(|server| server.entry.is_some()))
    });
    properties
}

/// Whether a get is about to find a record, or a not-found entry.
fn finds(state: &State, present: bool) -> bool {
    let reads = state.readers.iter().any(|reader| reader.call == Call::Reading);
    reads && state.live().is_some_and(|row| row.present == present)
}

/// The token at L.
fn held(state: &State) -> Option<Token> {
    match state.lease {
        Some(Lease::Held(token)) => Some(token),
        Some(Lease::Marked(_)) | None => None,
    }
}

/// Whether a fill is about to be accepted, or fenced.
fn fills(state: &State, accepted: bool) -> bool {
    let fate = |step: Step| matches!(step, Step::Filling { .. }) && (step.token() == held(state)) == accepted;
    state.flights().any(|flight| fate(flight.step))
}

/// Whether a script is about to find the mark that it is sent to replace, or not to find it.
fn takes_over(state: &State, finds: bool) -> bool {
    state.flights().any(|flight| match flight.step {
        Step::TakingOver { mark, .. } => (state.lease == Some(Lease::Marked(mark))) == finds,
        _ => false,
    })
}

/// The touches that are under way, and whether their flight still holds the lease.
fn touches(state: &State) -> impl Iterator<Item = bool> {
    let touches = state.flights().filter(|flight| matches!(flight.step, Step::Touching { .. }));
    touches.map(|flight| flight.step.token() == held(state))
}

/// The tokens of the refreshes whose fill is under way.
fn refreshing(state: &State) -> impl Iterator<Item = Option<Token>> {
    state.writers.iter().filter_map(|writer| match writer.stage {
        Stage::Refreshing(refresh @ Refresh::Filling { .. }) => Some(refresh.token()),
        _ => None,
    })
}

/// Whether an `invalidate` is between its two commands.
fn is_halfway(state: &State) -> bool {
    state.writers.iter().any(|writer| matches!(writer.stage, Stage::Halfway { .. }))
}

/// The flights that are about to end with a row, and which readers may take it.
fn ending(state: &State) -> impl Iterator<Item = (usize, impl Fn(usize) -> bool)> {
    (0..MAX_READERS).filter_map(|flight| match state.readers[flight].flight?.step {
        Step::Ending(result) => result.row.map(|_| (flight, move |reader| result.justified.is_after(reader))),
        _ => None,
    })
}

/// The transactions that are about to be sent: the row that they were shown, and whether they will be refused.
fn transactions(state: &State) -> impl Iterator<Item = (Option<Row>, bool)> {
    state.writers.iter().filter_map(|writer| match writer.stage {
        Stage::Deciding(transaction) => {
            let shown = transaction.shown.and_then(|entry| match entry {
                Entry::Whole(row) => Some(row),
                Entry::Stale(_) | Entry::Mixed => None,
            });
            Some((shown, transaction.refused))
        }
        _ => None,
    })
}

fn can_end(protocol: &Protocol, state: &State) -> bool {
    const MOST_STEPS: usize = 100;
    let (mut state, mut actions) = (*state, Vec::new());
    for _ in 0..MOST_STEPS {
        if state.breach.is_some() || state.readers.iter().all(|reader| reader.call == Call::Idle) {
            return true;
        }
        protocol.actions(&state, &mut actions);
        let Some(action) = actions.drain(..).find(|action| action.makes_progress()) else {
            return false;
        };
        protocol.take(&mut state, action);
    }
    false
}
