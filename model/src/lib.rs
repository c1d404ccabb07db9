//! A model of the protocol, checked in every order of its steps. `docs/protocol.md` tells what it covers and what it found.
//!
//! Run it with `cargo test -p model`; with `-- --nocapture` it prints each counterexample.
//!
//! With all guards in, every scope is searched to its end, and no promise breaks. With one guard taken out, the promise
//! that it keeps does break. The numbers are compared with the tables of that document, so neither can change alone.

#![cfg(test)]

mod flight;
mod get;
mod guard;
mod properties;
mod protocol;
mod scope;
mod scopes;
mod server;
mod state;
mod writer;

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, Path};

use crate::guard::{Guard, Guards};
use crate::protocol::{Action, Protocol};
use crate::scope::Scope;
use crate::state::State;

const DOCUMENT: &str = include_str!("../../docs/protocol.md");

/// A test for each scope that is searched to its end.
macro_rules! no_promise_breaks {
    ($($test:ident: $scope:ident, $name:literal;)*) => {
        $(
            #[test]
            fn $test() {
                search_to_the_end($name, scopes::$scope);
            }
        )*

        #[test]
        fn the_document_lists_no_other_scope() {
            let listed = DOCUMENT.lines().filter(|line| line.ends_with("| holds |")).count();
            assert_eq!(listed, [$($name),*].len());
        }
    };
}

no_promise_breaks! {
    without_a_writer: NO_WRITER, "reads alone";
    one_invalidates: INVALIDATE, "one invalidates";
    one_invalidates_at_home: INVALIDATE_AT_HOME, "one invalidates, among readers";
    one_invalidates_in_trouble: INVALIDATE_IN_TROUBLE, "one invalidates, every fault";
    one_invalidates_twice: INVALIDATE_TWICE, "one invalidates twice, every fault";
    readers_come_again: GET_TWICE, "readers come again";
    readers_of_one_process_come_again: GET_TWICE_TOGETHER, "readers of one process come again";
    two_invalidate: TWO_INVALIDATE, "two invalidate";
    two_invalidate_in_trouble: TWO_INVALIDATE_IN_TROUBLE, "two invalidate, every fault";
    two_create_and_delete: CREATE_AND_DELETE, "one creates, one deletes";
    two_create_and_delete_together: CREATE_AND_DELETE_TOGETHER, "one creates, one deletes, a flight is shared";
    one_updates: UPDATE, "one updates";
    one_updates_twice: UPDATE_TWICE, "one updates two fields";
    one_updates_and_invalidates: UPDATE_AND_INVALIDATE, "one updates, then invalidates";
    one_updates_what_was_not_found: UPDATE_OF_NOT_FOUND, "one creates and updates, then deletes";
    two_update_in_turns: UPDATE_IN_TURNS, "two update in turns";
}

#[test]
fn without_token_check_a_fenced_load_overwrites() {
    breaks_without(Guard::TokenCheck, scopes::ONE_WRITER, properties::FRESH);
}

#[test]
fn without_revocation_a_load_outlives_the_invalidation() {
    breaks_without(Guard::Revocation, scopes::ONE_WRITER, properties::FRESH);
}

#[test]
fn without_the_lease_first_an_old_load_lands_between_entry_and_lease() {
    breaks_without(Guard::LeaseFirst, scopes::ONE_WRITER, properties::FRESH);
}

#[test]
fn without_atomic_revocation_an_old_load_lands_between_look_and_revocation() {
    breaks_without(Guard::AtomicRevocation, scopes::ONE_UPDATE, properties::FRESH);
}

#[test]
fn without_the_stamp_rule_a_late_call_gets_the_old_value() {
    breaks_without(Guard::TimestampRule, scopes::ONE_WRITER, properties::FRESH);
}

#[test]
fn without_fresh_tokens_a_fenced_load_fills_under_the_next_lease() {
    breaks_without(Guard::FreshTokens, scopes::ONE_WRITER_AT_HOME, properties::FRESH);
}

#[test]
fn without_recheck_what_was_just_filled_is_loaded_again() {
    breaks_without(Guard::Recheck, scopes::ONE_WRITER, properties::ONE_LOAD);
}

#[test]
fn without_whole_not_found_entries_an_update_makes_a_mixture() {
    breaks_without(Guard::WholeNotFound, scopes::ONE_UPDATE_OF_NOT_FOUND, properties::WHOLE);
}

/// Not an error of the protocol: what it can't promise where two writers of one record update it.
#[test]
fn two_updates_of_one_field_arrive_in_the_other_order() {
    breaks("two updates of one field", Guards::ALL, scopes::LAST_CALL_WINS, properties::FRESH);
}

#[test]
fn two_updates_of_two_fields_make_what_never_was() {
    breaks("two updates of two fields", Guards::ALL, scopes::NEVER_TOGETHER, properties::WHOLE);
}

fn search_to_the_end(name: &str, scope: Scope) {
    let began = Instant::now();
    // It has no limit of time, states or depth, and no promise that breaks: nothing but the end can end it.
    let checker = Protocol { scope, guards: Guards::ALL }.checker().spawn_bfs().join();
    assert!(checker.is_done());
    let (unique, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{name}: {unique} states, depth {depth}, {:.1?}", began.elapsed());
    checker.assert_properties();
    document_lists(&format!("| {name} | {scope} | {} | holds |", thousands(unique)));
}

fn breaks_without(guard: Guard, scope: Scope, promise: &'static str) {
    breaks(&format!("`{guard:?}`"), Guards::without(guard), scope, promise);
}

fn breaks(name: &str, guards: Guards, scope: Scope, promise: &'static str) {
    println!("{name}: not {promise}");
    let steps = shortest(Protocol { scope, guards }, promise);
    document_lists(&format!("| {name} | {scope} | {promise} | {steps} |"));
}

/// Prints the shortest counterexample and returns the number of its steps.
fn shortest(protocol: Protocol, promise: &'static str) -> usize {
    let mut path = counterexample(protocol, promise, None).expect("the promise breaks");
    // A search ends some states after its first discovery, and shows the last.
    while let Some(shorter) = counterexample(protocol, promise, Some(steps(&path))) {
        path = shorter;
    }
    for (number, (_, action)) in path.clone().into_vec().into_iter().enumerate() {
        if let Some(action) = action {
            println!("{:3} {action:?}", number + 1);
        }
    }
    steps(&path)
}

/// A counterexample, of fewer steps than `below`.
fn counterexample(protocol: Protocol, promise: &'static str, below: Option<usize>) -> Option<Path<State, Action>> {
    let finish = HasDiscoveries::AllOf([promise].into());
    // The depth counts states, of which a path has one more than steps; 0 is no limit.
    let checker = protocol.checker().finish_when(finish).target_max_depth(below.map_or(0, |steps| steps + 1));
    checker.spawn_bfs().join().discovery(promise)
}

fn steps(path: &Path<State, Action>) -> usize {
    path.clone().into_actions().len()
}

fn document_lists(row: &str) {
    assert!(DOCUMENT.lines().any(|line| line == row), "docs/protocol.md lacks this row:\n{row}");
}

fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
