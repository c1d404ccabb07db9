//! Scopes: the readers, the writers with their writes, what loads may do, and the faults. A small scope can be explored
//! exhaustively.
//!
//! A scope is displayed in the words of the tables in `docs/protocol.md`.

use std::fmt;

use crate::primary::Change;

/// The participants and faults of one search.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope {
    /// The process that each reader is in.
    pub(crate) readers: &'static [u8],
    /// How many gets each reader does, one after another.
    pub(crate) gets: u8,
    pub(crate) writers: &'static [Plan],
    /// Whether each writer keeps the others from committing until its call has returned.
    pub(crate) take_turns: bool,
    /// Whether the primary has the row at the start.
    pub(crate) row_exists: bool,
    pub(crate) loads: Loads,
    pub(crate) faults: Faults,
    /// The server that takes over, if one does.
    pub(crate) takes_over: Option<Place>,
}

/// The server that takes over, with an older state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A replica that is promoted, and that each process moves to in its own time.
    Replica,
    /// The server itself, after a restart.
    Snapshot,
}

/// A writer's process, and its writes, one after another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) process: u8,
    pub(crate) writes: &'static [Write],
}

/// A commit and the call that follows it, or a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    Invalidate(Change),
    Update(Change),
    Refresh,
}

/// The other results of loads than a row to store, and how stale records are used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Loads {
    /// A load may store nothing, and leaves a mark if it does so or fails. Without this, a load that fails gives its lease
    /// back, which is like a mark that expires at once.
    pub(crate) leave_marks: bool,
    /// Records become stale, and a loader may answer that the one that it was shown is unchanged.
    pub(crate) may_be_unchanged: bool,
    /// Records become stale, and are served while a flight loads them anew.
    pub(crate) serve_stale: bool,
    /// Records become stale, and are served in place of a load that has failed.
    pub(crate) fall_back: bool,
}

impl Loads {
    pub(crate) const PLAIN: Self =
        Self { leave_marks: false, may_be_unchanged: false, serve_stale: false, fall_back: false };
    pub(crate) const MARKS: Self = Self { leave_marks: true, ..Self::PLAIN };
    pub(crate) const UNCHANGED: Self = Self { may_be_unchanged: true, ..Self::PLAIN };
    pub(crate) const STALE: Self = Self { serve_stale: true, ..Self::PLAIN };
    pub(crate) const ALL: Self = Self { leave_marks: true, may_be_unchanged: true, serve_stale: true, fall_back: true };

    /// Whether records become stale.
    pub(crate) fn know_stale(self) -> bool {
        self.may_be_unchanged || self.serve_stale || self.fall_back
    }
}

/// The faults that may occur: a `bool` allows a fault at any time and any number of times, a number is the most that
/// occur.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    /// The lease or the entry expires.
    pub(crate) expiry: bool,
    pub(crate) loader_failure: bool,
    pub(crate) cancellation: bool,
    pub(crate) crashes: u8,
    /// Commands that get no answer.
    pub(crate) losses: u8,
}

impl Faults {
    pub(crate) const NONE: Self =
        Self { expiry: false, loader_failure: false, cancellation: false, crashes: 0, losses: 0 };
    pub(crate) const EXPIRY: Self = Self { expiry: true, ..Self::NONE };
    /// The faults of a single call or load, and expiry.
    pub(crate) const OF_ONE_CALL: Self = Self { loader_failure: true, cancellation: true, ..Self::EXPIRY };
    pub(crate) const EVERY: Self = Self { crashes: 1, losses: 1, ..Self::OF_ONE_CALL };

    fn are_some(self) -> bool {
        self.expiry || self.loader_failure || self.cancellation || self.crashes > 0 || self.losses > 0
    }
}

impl Change {
    /// Whether it creates or deletes the row.
    pub(crate) fn moves_row(self) -> bool {
        matches!(self, Self::Create | Self::Delete)
    }
}

impl Scope {
    pub(crate) fn writes(&self) -> impl Iterator<Item = Write> {
        self.writers.iter().flat_map(|writer| writer.writes).copied()
    }

    pub(crate) fn processes(&self) -> impl Iterator<Item = u8> {
        let last = self.readers.iter().copied().max().unwrap_or(0);
        0..=last
    }

    /// The processes of writers too.
    pub(crate) fn all_processes(&self) -> impl Iterator<Item = u8> {
        let of_writers = self.writers.iter().map(|writer| writer.process);
        0..=self.readers.iter().copied().chain(of_writers).max().unwrap_or(0)
    }

    /// Whether two readers share a process.
    pub(crate) fn share(&self) -> bool {
        self.readers.windows(2).any(|pair| pair[0] == pair[1])
    }
}

/// The columns of the tables that describe a scope: readers, writers, loads, faults.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let readers: Vec<_> = self.readers.iter().map(|&process| letter(process).to_string()).collect();
        write!(f, "{}", readers.join(" "))?;
        if self.gets > 1 {
            write!(f, ", {} gets each", self.gets)?;
        }
        let writers: Vec<_> = self.writers.iter().map(ToString::to_string).collect();
        let writers = if writers.is_empty() { "none".to_owned() } else { writers.join("; ") };
        let turns = if self.take_turns { ", in turns" } else { "" };
        let faults = [
            Some(self.faults.to_string()).filter(|_| self.takes_over.is_none() || self.faults.are_some()),
            self.takes_over.map(|place| match place {
                Place::Replica => "promotion".to_owned(),
                Place::Snapshot => "restart".to_owned(),
            }),
        ];
        let faults: Vec<_> = faults.into_iter().flatten().collect();
        write!(f, " | {writers}{turns} | {} | {}", self.loads, faults.join(", "))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let writes: Vec<_> = self.writes.iter().map(ToString::to_string).collect();
        write!(f, "{}: {}", letter(self.process), writes.join(", "))
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (change, then) = match self {
            Self::Invalidate(change) => (change, "invalidate"),
            Self::Update(change) => (change, "update"),
            Self::Refresh => return f.write_str("`refresh`"),
        };
        let change = match change {
            Change::A => "a",
            Change::B => "b",
            Change::Create => "create",
            Change::Delete => "delete",
        };
        write!(f, "{change} `{then}`")
    }
}

impl fmt::Display for Loads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends = [
            (self.leave_marks, "marks"),
            (self.may_be_unchanged, "unchanged"),
            (self.serve_stale, "served stale"),
            (self.fall_back, "stale if error"),
        ];
        named(f, "plain", &ends)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (crashes, losses) = (format!("{} crash", self.crashes), format!("{} lost", self.losses));
        let faults = [
            (self.expiry, "expiry"),
            (self.loader_failure, "loader failure"),
            (self.cancellation, "cancellation"),
            (self.crashes > 0, &crashes),
            (self.losses > 0, &losses),
        ];
        named(f, "none", &faults)
    }
}

/// The names of the switches that are on.
fn named(f: &mut fmt::Formatter<'_>, none: &str, switches: &[(bool, &str)]) -> fmt::Result {
    let names: Vec<_> = switches.iter().filter(|(is_on, _)| *is_on).map(|(_, name)| *name).collect();
    f.write_str(if names.is_empty() { none } else { "" })?;
    f.write_str(&names.join(", "))
}

fn letter(process: u8) -> char {
    char::from(b'A' + process)
}
