//! A model of the protocol, checked in every order of its steps. `docs/protocol.md` says what it covers and what it
//! found.
//!
//! Run it with `cargo test -p model`; with `-- --nocapture` it prints each counterexample.
//!
//! With all guards, every scope is explored exhaustively, and no promise breaks. With one guard taken out, the promise
//! that it protects does break. The numbers are compared with the tables in that page, so neither can change without
//! the other.

#![cfg(test)]

mod flight;
mod get;
mod guard;
mod primary;
mod properties;
mod protocol;
mod refresh;
mod scope;
mod scopes;
mod server;
mod state;
mod takeover;
mod writer;

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, Path};

use crate::guard::{Guard, Guards};
use crate::protocol::{Action, Protocol};
use crate::scope::Scope;
use crate::state::State;

const DOCUMENT: &str = include_str!("../../docs/protocol.md");

/// A test for each scope that is explored exhaustively.
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
    reads_alone: NO_WRITER, "reads alone";
    one_invalidates: INVALIDATE, "one invalidates";
    one_invalidates_among_readers: INVALIDATE_IN_PROCESS, "one invalidates, among readers";
    one_invalidates_with_every_fault: INVALIDATE_EVERY_FAULT, "one invalidates, every fault";
    one_invalidates_twice: INVALIDATE_TWICE, "one invalidates twice, every fault";
    readers_come_again: GET_TWICE, "readers come again";
    readers_of_one_process_come_again: GET_TWICE_TOGETHER, "readers of one process come again";
    two_invalidate: TWO_INVALIDATE, "two invalidate";
    two_invalidate_with_every_fault: TWO_INVALIDATE_EVERY_FAULT, "two invalidate, every fault";
    one_creates_and_one_deletes: CREATE_AND_DELETE, "one creates, one deletes";
    one_creates_and_one_deletes_with_a_shared_flight: CREATE_AND_DELETE_TOGETHER, "one creates, one deletes, a flight is shared";
    one_updates: UPDATE, "one updates";
    one_updates_two_fields: UPDATE_TWICE, "one updates two fields";
    one_updates_and_invalidates: UPDATE_AND_INVALIDATE, "one updates, then invalidates";
    one_creates_and_updates_then_deletes: UPDATE_OF_NOT_FOUND, "one creates and updates, then deletes";
    two_update_in_turns: UPDATE_IN_TURNS, "two update in turns";
    loads_leave_marks: MARKS, "loads leave marks";
    loads_leave_marks_with_every_fault: MARKS_EVERY_FAULT, "loads leave marks, every fault";
    loaders_answer_unchanged: UNCHANGED, "loaders answer `unchanged`";
    loaders_answer_unchanged_in_a_shared_flight: UNCHANGED_TOGETHER, "loaders answer `unchanged`, a flight is shared";
    loaders_answer_unchanged_beside_updates: UNCHANGED_UPDATES, "loaders answer `unchanged`, one updates";
    stale_records_are_served: SERVED_STALE, "stale records are served";
    stale_records_are_served_with_every_fault: SERVED_STALE_EVERY_FAULT, "stale records are served, every fault";
    loads_end_in_every_way: EVERY_LOAD, "loads end in every way";
    loads_end_in_every_way_beside_updates: EVERY_LOAD_UPDATES, "loads end in every way, one updates, then invalidates";
    one_refreshes: REFRESHED, "one refreshes, one invalidates";
    one_refreshes_with_every_fault: REFRESHED_EVERY_FAULT, "one refreshes, one invalidates, every fault";
    a_replica_is_promoted: PROMOTION, "a replica is promoted, one invalidates";
    a_replica_is_promoted_for_a_writer_elsewhere: PROMOTION_ELSEWHERE, "a replica is promoted, another process invalidates";
    a_replica_is_promoted_beside_updates: PROMOTION_UPDATES, "a replica is promoted, one updates";
    a_replica_is_promoted_while_loaders_answer_unchanged: PROMOTION_UNCHANGED, "a replica is promoted, loaders answer `unchanged`";
    a_replica_is_promoted_while_stale_records_are_served: PROMOTION_SERVED_STALE, "a replica is promoted, stale records are served";
    a_server_restarts_from_a_snapshot: RESTART, "a server restarts from a snapshot, one invalidates";
    a_server_restarts_from_a_snapshot_beside_updates: RESTART_TOGETHER, "a server restarts from a snapshot, one updates";
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
fn without_lease_first_an_old_load_fills_between_entry_and_lease() {
    breaks_without(Guard::LeaseFirst, scopes::ONE_WRITER, properties::FRESH);
}

#[test]
fn without_atomic_revocation_an_old_load_fills_between_look_and_revocation() {
    breaks_without(Guard::AtomicRevocation, scopes::ONE_UPDATE, properties::FRESH);
}

#[test]
fn without_the_timestamp_rule_a_late_call_gets_the_old_value() {
    breaks_without(Guard::TimestampRule, scopes::ONE_WRITER, properties::FRESH);
}

#[test]
fn without_fresh_tokens_a_fenced_load_fills_under_the_next_lease() {
    breaks_without(Guard::FreshTokens, scopes::ONE_WRITER_IN_PROCESS, properties::FRESH);
}

#[test]
fn without_recheck_a_record_that_was_just_filled_is_loaded_again() {
    breaks_without(Guard::Recheck, scopes::ONE_WRITER, properties::ONE_LOAD);
}

#[test]
fn without_whole_not_found_an_update_mixes_a_record_with_a_not_found_entry() {
    breaks_without(Guard::WholeNotFound, scopes::ONE_UPDATE_OF_NOT_FOUND, properties::WHOLE);
}

#[test]
fn without_mark_check_a_lease_is_taken_from_another_load() {
    breaks_without(Guard::MarkCheck, scopes::ONE_MARK, properties::ONE_LOAD);
}

#[test]
fn without_token_check_a_mark_takes_a_lease_away() {
    breaks_without(Guard::TokenCheck, scopes::ONE_FAILURE, properties::ONE_LOAD);
}

#[test]
fn without_token_check_a_fenced_touch_renews_another_record() {
    breaks_without(Guard::TokenCheck, scopes::ONE_WRITER_OF_UNCHANGED, properties::CONFIRMED);
}

#[test]
fn without_granted_record_another_record_is_renewed() {
    breaks_without(Guard::GrantedRecord, scopes::ONE_WRITER_BACK_AND_FORTH, properties::CONFIRMED);
}

#[test]
fn without_own_read_a_late_call_gets_the_stale_record_of_another() {
    breaks_without(Guard::OwnRead, scopes::ONE_WRITER_OF_STALE, properties::FRESH);
}

#[test]
fn without_replay_a_promoted_replica_brings_an_old_entry_back() {
    breaks_without(Guard::Replay, scopes::PROMOTION, properties::FRESH);
}

#[test]
fn without_replay_a_restart_brings_an_old_entry_back() {
    breaks_without(Guard::Replay, scopes::RESTART, properties::FRESH);
}

#[test]
fn without_answer_check_a_read_that_was_sent_before_finds_what_came_back() {
    breaks_without(Guard::AnswerCheck, scopes::PROMOTION, properties::FRESH);
}

#[test]
fn without_answer_check_a_touch_renews_what_came_back() {
    breaks_without(Guard::AnswerCheck, scopes::PROMOTION_UNCHANGED, properties::CONFIRMED);
}

/// Not a bug: the protocol can't promise more when two writers update one record.
#[test]
fn two_updates_of_one_field_can_arrive_in_the_wrong_order() {
    breaks("two updates of one field", Guards::ALL, scopes::LAST_CALL_WINS, properties::FRESH);
}

#[test]
fn two_updates_of_two_fields_can_make_a_record_that_never_was() {
    breaks("two updates of two fields", Guards::ALL, scopes::NEVER_TOGETHER, properties::WHOLE);
}

fn search_to_the_end(name: &str, scope: Scope) {
    let began = Instant::now();
    // The search has no limit on time, states or depth, and no promise breaks: it ends only when all states are
    // explored.
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
    // A search goes on for some states after its first discovery, and reports the last.
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

/// A counterexample with fewer steps than `below`.
fn counterexample(protocol: Protocol, promise: &'static str, below: Option<usize>) -> Option<Path<State, Action>> {
    let finish = HasDiscoveries::AllOf([promise].into());
    // Depth is counted in states, and a path has one more of them than steps; 0 means no limit.
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
