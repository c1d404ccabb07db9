//! The scopes of the model: some are explored exhaustively, others only until a counterexample is found.
//!
//! Two readers in one process find mistakes in sharing a flight, two readers in different processes mistakes in sharing
//! a lease. A writer takes the flights of its own process out of the map, so it matters whether readers share its
//! process.

use crate::primary::Change;
use crate::scope::{Faults, Loads, Place, Plan, Scope, Write};

const A: u8 = 0;
const B: u8 = 1;
/// A process without readers.
const C: u8 = 2;

const TOGETHER: &[u8] = &[A, A];
const APART: &[u8] = &[A, B];
const BOTH: &[u8] = &[A, A, B];

const SET_A: Write = Write::Invalidate(Change::A);
const SET_B: Write = Write::Invalidate(Change::B);
const CREATE: Write = Write::Invalidate(Change::Create);
const DELETE: Write = Write::Invalidate(Change::Delete);
const UPDATE_A: Write = Write::Update(Change::A);
const UPDATE_B: Write = Write::Update(Change::B);
const UPDATE_NEW: Write = Write::Update(Change::Create);
const REFRESH: Write = Write::Refresh;

const fn writer(process: u8, writes: &'static [Write]) -> Plan {
    Plan { process, writes }
}

const QUIET: Scope = Scope {
    readers: BOTH,
    gets: 1,
    writers: &[],
    take_turns: false,
    row_exists: true,
    loads: Loads::PLAIN,
    faults: Faults::NONE,
    takes_over: None,
};

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

pub(crate) const MARKS: Scope = Scope {
    writers: &[writer(C, &[SET_A])],
    loads: Loads::MARKS,
    faults: Faults { loader_failure: true, ..Faults::EXPIRY },
    ..QUIET
};

pub(crate) const MARKS_EVERY_FAULT: Scope =
    Scope { readers: APART, writers: &[writer(A, &[SET_A])], faults: Faults::EVERY, ..MARKS };

/// The second write brings back the value from before the first.
pub(crate) const UNCHANGED: Scope = Scope {
    readers: APART,
    writers: &[writer(C, &[SET_A, SET_A])],
    loads: Loads::UNCHANGED,
    faults: Faults { losses: 1, ..Faults::EXPIRY },
    ..QUIET
};

pub(crate) const UNCHANGED_TOGETHER: Scope =
    Scope { readers: TOGETHER, faults: Faults { losses: 1, ..Faults::OF_ONE_CALL }, ..UNCHANGED };

pub(crate) const UNCHANGED_UPDATES: Scope =
    Scope { writers: &[writer(A, &[UPDATE_A, UPDATE_B])], faults: Faults::EXPIRY, ..UNCHANGED };

pub(crate) const SERVED_STALE: Scope =
    Scope { writers: &[writer(C, &[SET_A])], loads: Loads::STALE, faults: Faults::EXPIRY, ..QUIET };

pub(crate) const SERVED_STALE_EVERY_FAULT: Scope = Scope { readers: TOGETHER, faults: Faults::EVERY, ..SERVED_STALE };

pub(crate) const EVERY_LOAD: Scope =
    Scope { readers: APART, writers: &[writer(A, &[SET_A])], loads: Loads::ALL, faults: Faults::EVERY, ..QUIET };

pub(crate) const EVERY_LOAD_UPDATES: Scope = Scope {
    readers: TOGETHER,
    writers: &[writer(C, &[UPDATE_A, SET_B])],
    faults: Faults { loader_failure: true, losses: 1, ..Faults::EXPIRY },
    ..EVERY_LOAD
};

pub(crate) const REFRESHED: Scope = Scope {
    readers: APART,
    writers: &[writer(C, &[REFRESH]), writer(A, &[SET_A])],
    faults: Faults { loader_failure: true, ..Faults::EXPIRY },
    ..QUIET
};

pub(crate) const REFRESHED_EVERY_FAULT: Scope = Scope {
    readers: &[A],
    gets: 2,
    writers: &[writer(A, &[REFRESH]), writer(C, &[SET_A])],
    faults: Faults::EVERY,
    ..QUIET
};

pub(crate) const PROMOTION: Scope =
    Scope { readers: APART, writers: &[writer(A, &[SET_A])], takes_over: Some(Place::Replica), ..QUIET };

pub(crate) const PROMOTION_ELSEWHERE: Scope =
    Scope { readers: &[A], gets: 2, writers: &[writer(C, &[SET_A])], ..PROMOTION };

pub(crate) const PROMOTION_UPDATES: Scope =
    Scope { readers: TOGETHER, writers: &[writer(A, &[UPDATE_A])], ..PROMOTION };

pub(crate) const PROMOTION_UNCHANGED: Scope = Scope { loads: Loads::UNCHANGED, ..PROMOTION };

pub(crate) const PROMOTION_SERVED_STALE: Scope = Scope { readers: TOGETHER, loads: Loads::STALE, ..PROMOTION };

pub(crate) const RESTART: Scope =
    Scope { writers: &[writer(C, &[SET_A])], takes_over: Some(Place::Snapshot), ..PROMOTION };

pub(crate) const RESTART_TOGETHER: Scope =
    Scope { readers: TOGETHER, writers: &[writer(A, &[UPDATE_A])], faults: Faults::EXPIRY, ..RESTART };

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

pub(crate) const ONE_MARK: Scope = Scope { readers: APART, loads: Loads::MARKS, ..QUIET };

pub(crate) const ONE_FAILURE: Scope = Scope { faults: Faults { loader_failure: true, ..Faults::EXPIRY }, ..ONE_MARK };

pub(crate) const ONE_WRITER_OF_UNCHANGED: Scope =
    Scope { readers: APART, writers: &[writer(C, &[SET_A])], loads: Loads::UNCHANGED, ..QUIET };

pub(crate) const ONE_WRITER_BACK_AND_FORTH: Scope =
    Scope { writers: &[writer(C, &[SET_A, SET_A])], ..ONE_WRITER_OF_UNCHANGED };

pub(crate) const ONE_WRITER_OF_STALE: Scope =
    Scope { readers: TOGETHER, writers: &[writer(C, &[SET_A])], loads: Loads::STALE, ..QUIET };
