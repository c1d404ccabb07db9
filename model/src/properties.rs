//! The promises of the protocol, and the events that a search has to reach for the promises to mean anything.
//!
//! *No dead end* is checked from every reachable state: if from then on there are no faults, nothing expires, no writer acts,
//! no get starts, and flights don't wait for other processes' loads, all gets that are under way still end.

use stateright::{Model, Property};

use crate::protocol::Protocol;
use crate::scope::{Scope, Then};
use crate::state::{Breach, Call, Entry, Late, MAX_READERS, Row, Stage, State, Step};

/// No get returns older data than is promised by the writes that returned before it started.
pub(crate) const FRESH: &str = "fresh";
/// No entry is partial, and no get returns a record that the primary never had.
pub(crate) const WHOLE: &str = "whole";
/// No load starts under a lease while a whole entry is there that was there before the grant.
pub(crate) const ONE_LOAD: &str = "one load";
/// From every state, every get can still end.
pub(crate) const NO_DEAD_END: &str = "no dead end";
/// No call is too late for a flight that it leads.
pub(crate) const OWN_FLIGHT: &str = "own flight";

/// The promises, and the events that the scope has to reach.
pub(crate) fn of(scope: &Scope) -> Vec<Property<Protocol>> {
    let mut properties = vec![
        Property::always(FRESH, |_, state: &State| state.breach != Some(Breach::Stale)),
        Property::always(WHOLE, |_, state: &State| {
            state.breach != Some(Breach::Torn) && state.entry != Some(Entry::Mixed)
        }),
        Property::always(ONE_LOAD, |_, state: &State| state.breach != Some(Breach::NeedlessLoad)),
        Property::always(NO_DEAD_END, can_end),
        Property::always(OWN_FLIGHT, |_, state: &State| state.breach != Some(Breach::OwnFlightTooLate)),
        Property::sometimes("a hit", |_, state: &State| finds(state, true)),
        Property::sometimes("a fill", |_, state: &State| fills(state, true)),
        Property::sometimes("an entry that is found under a new lease, which is given back", |_, state: &State| {
            let hands_back = |step| matches!(step, Step::Looking { granted: true, .. }) && whole(state).is_some();
            state.flights().any(|flight| hands_back(flight.step))
        }),
        Property::sometimes("a load around the cache", |_, state: &State| {
            state.flights().any(|flight| matches!(flight.step, Step::Loading { lease: None, .. }))
        }),
        Property::sometimes("a read that waited for another's load", |_, state: &State| {
            state.flights().any(|flight| flight.step == Step::Waiting) && whole(state).is_some()
        }),
    ];
    let mut sometimes = |when: bool, name, condition| {
        if when {
            properties.push(Property::sometimes(name, condition));
        }
    };
    let (writes, faults) = (|| scope.writers.iter().flat_map(|writer| writer.writes), scope.faults);
    let updates = || writes().any(|write| write.then == Then::Update);
    let invalidates = || writes().any(|write| write.then == Then::Invalidate);
    sometimes(writes().next().is_some(), "a fenced fill", |_, state| fills(state, false));
    sometimes(writes().any(|write| write.change.moves_row()), "a not-found hit", |_, state| finds(state, false));
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
        state.lease.is_some() && state.flights().all(|flight| flight.step.token() != state.lease)
    });
    sometimes(faults.losses > 0, "a late command", |_, state| state.late.iter().any(Option::is_some));
    sometimes(faults.losses > 0 && invalidates(), "half of an invalidation that comes late", |_, state| {
        state.late.contains(&Some(Late::SecondDelete)) && whole(state).is_some()
    });
    properties
}

fn whole(state: &State) -> Option<Row> {
    match state.entry {
        Some(Entry::Whole(row)) => Some(row),
        Some(Entry::Mixed) | None => None,
    }
}

/// Whether a get is about to find a record, or a not-found entry.
fn finds(state: &State, present: bool) -> bool {
    let reads = state.readers.iter().any(|reader| reader.call == Call::Reading);
    reads && whole(state).is_some_and(|row| row.present == present)
}

/// Whether a fill is about to be accepted, or fenced.
fn fills(state: &State, accepted: bool) -> bool {
    let fate = |step: Step| matches!(step, Step::Filling { .. }) && (step.token() == state.lease) == accepted;
    state.flights().any(|flight| fate(flight.step))
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
                Entry::Mixed => None,
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
