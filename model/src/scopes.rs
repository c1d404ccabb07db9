//! The scopes of the model: some are explored exhaustively, others only until a counterexample is found.
//!
//! Two readers in one process find mistakes in sharing a flight, two readers in different processes mistakes in sharing
//! a lease. A writer takes the flights of its own process out of the map, so it matters whether readers share its
//! process.

use crate::scope::{Faults, Plan, Scope, Then, Write};
use crate::state::Change;

const A: u8 = 0;
const B: u8 = 1;
/// A process without readers.
const C: u8 = 2;

const TOGETHER: &[u8] = &[A, A];
const APART: &[u8] = &[A, B];
const BOTH: &[u8] = &[A, A, B];

const SET_A: Write = Write { change: Change::A, then: Then::Invalidate };
const SET_B: Write = Write { change: Change::B, then: Then::Invalidate };
const CREATE: Write = Write { change: Change::Create, then: Then::Invalidate };
const DELETE: Write = Write { change: Change::Delete, then: Then::Invalidate };
const UPDATE_A: Write = Write { change: Change::A, then: Then::Update };
const UPDATE_B: Write = Write { change: Change::B, then: Then::Update };
const UPDATE_NEW: Write = Write { change: Change::Create, then: Then::Update };

const fn writer(process: u8, writes: &'static [Write]) -> Plan {
    Plan { process, writes }
}

const QUIET: Scope =
    Scope { readers: BOTH, gets: 1, writers: &[], take_turns: false, row_exists: true, faults: Faults::NONE };

pub(crate) const NO_WRITER: Scope = Scope { faults: Faults::EVERY, ..QUIET };

pub(crate) const INVALIDATE: Scope = Scope { writers: &[writer(C, &[SET_A])], faults: Faults::OF_ONE_CALL, ..QUIET };

pub(crate) const INVALIDATE_IN_PROCESS: Scope =
    Scope { writers: &[writer(A, &[SET_A])], faults: Faults::EXPIRY, ..QUIET };

pub(crate) const INVALIDATE_EVERY_FAULT: Scope =
    Scope { readers: APART, writers: &[writer(A, &[SET_A])], faults: Faults { losses: 2, ..Faults::EVERY }, ..QUIET };

pub(crate) const INVALIDATE_TWICE: Scope =
    Scope { readers: TOGETHER, writers: &[writer(A, &[SET_A, SET_B])], faults: Faults::EVERY, ..QUIET };

pub(crate) const GET_TWICE: Scope =
    Scope { readers: APART, gets: 2, writers: &[writer(A, &[SET_A])], faults: Faults::EXPIRY, ..QUIET };

pub(crate) const GET_TWICE_TOGETHER: Scope = Scope {
    readers: TOGETHER,
    gets: 2,
    writers: &[writer(C, &[SET_A])],
    faults: Faults { losses: 1, ..Faults::OF_ONE_CALL },
    ..QUIET
};

pub(crate) const TWO_INVALIDATE: Scope = Scope { writers: &[writer(C, &[SET_A]), writer(C, &[SET_B])], ..QUIET };

pub(crate) const TWO_INVALIDATE_EVERY_FAULT: Scope =
    Scope { readers: TOGETHER, writers: &[writer(A, &[SET_A]), writer(C, &[SET_B])], faults: Faults::EVERY, ..QUIET };

pub(crate) const CREATE_AND_DELETE: Scope = Scope {
    readers: APART,
    writers: &[writer(A, &[CREATE]), writer(C, &[DELETE])],
    row_exists: false,
    faults: Faults { losses: 1, ..Faults::EXPIRY },
    ..QUIET
};

pub(crate) const CREATE_AND_DELETE_TOGETHER: Scope =
    Scope { readers: TOGETHER, faults: Faults::OF_ONE_CALL, ..CREATE_AND_DELETE };

pub(crate) const UPDATE: Scope = Scope { writers: &[writer(A, &[UPDATE_A])], faults: Faults::EXPIRY, ..QUIET };

pub(crate) const UPDATE_TWICE: Scope = Scope {
    readers: APART,
    writers: &[writer(A, &[UPDATE_A, UPDATE_B])],
    faults: Faults { crashes: 1, losses: 1, ..Faults::EXPIRY },
    ..QUIET
};

pub(crate) const UPDATE_AND_INVALIDATE: Scope =
    Scope { readers: TOGETHER, writers: &[writer(C, &[UPDATE_A, SET_B])], faults: Faults::EVERY, ..QUIET };

pub(crate) const UPDATE_OF_NOT_FOUND: Scope = Scope {
    readers: APART,
    writers: &[writer(A, &[UPDATE_NEW, DELETE])],
    row_exists: false,
    faults: Faults { losses: 1, ..Faults::EXPIRY },
    ..QUIET
};

pub(crate) const UPDATE_IN_TURNS: Scope = Scope {
    readers: APART,
    writers: &[writer(A, &[UPDATE_A]), writer(C, &[UPDATE_B])],
    take_turns: true,
    faults: Faults { losses: 1, ..Faults::EXPIRY },
    ..QUIET
};

/// No guard helps here: two writers commit in one order and call in the other.
pub(crate) const LAST_CALL_WINS: Scope =
    Scope { readers: &[A], writers: &[writer(A, &[UPDATE_A]), writer(C, &[UPDATE_A])], ..QUIET };

pub(crate) const NEVER_TOGETHER: Scope =
    Scope { readers: &[A], writers: &[writer(A, &[UPDATE_A]), writer(C, &[UPDATE_B])], ..QUIET };

pub(crate) const ONE_WRITER: Scope = Scope { writers: &[writer(C, &[SET_A])], ..QUIET };

pub(crate) const ONE_WRITER_IN_PROCESS: Scope = Scope { writers: &[writer(A, &[SET_A])], ..QUIET };

pub(crate) const ONE_UPDATE: Scope = Scope { writers: &[writer(C, &[UPDATE_A])], ..QUIET };

pub(crate) const ONE_UPDATE_OF_NOT_FOUND: Scope =
    Scope { writers: &[writer(C, &[UPDATE_NEW])], row_exists: false, ..QUIET };
