//! Scopes: the readers, the writers with their writes, and the faults. A small scope can be explored exhaustively.
//!
//! A scope is displayed in the words of the tables in `docs/protocol.md`.

use std::fmt;

use crate::state::Change;

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
    pub(crate) faults: Faults,
}

/// A writer's process, and its writes, one after another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) process: u8,
    pub(crate) writes: &'static [Write],
}

/// A commit, and the call that follows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Write {
    pub(crate) change: Change,
    pub(crate) then: Then,
}

/// The call that follows a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Invalidate,
    Update,
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
}

impl Change {
    /// Whether it creates or deletes the row.
    pub(crate) fn moves_row(self) -> bool {
        matches!(self, Self::Create | Self::Delete)
    }
}

impl Scope {
    pub(crate) fn processes(&self) -> impl Iterator<Item = u8> {
        let last = self.readers.iter().copied().max().unwrap_or(0);
        0..=last
    }

    /// Whether two readers share a process.
    pub(crate) fn share(&self) -> bool {
        self.readers.windows(2).any(|pair| pair[0] == pair[1])
    }
}

/// The columns of the tables that describe a scope: readers, writers, faults.
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
        write!(f, " | {writers}{turns} | {}", self.faults)
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
        let change = match self.change {
            Change::A => "a",
            Change::B => "b",
            Change::Create => "create",
            Change::Delete => "delete",
        };
        let then = match self.then {
            Then::Invalidate => "invalidate",
            Then::Update => "update",
        };
        write!(f, "{change} `{then}`")
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
        let named: Vec<_> = faults.iter().filter(|(comes, _)| *comes).map(|(_, name)| *name).collect();
        f.write_str(if named.is_empty() { "none" } else { "" })?;
        f.write_str(&named.join(", "))
    }
}

fn letter(process: u8) -> char {
    char::from(b'A' + process)
}
