//! The protocol's commands and scripts on the server, each of them atomic.
//!
//! Knows K, L and the transactions that watch K; nothing about calls or flights.

use crate::guard::{Guard, Guards};
use crate::primary::Row;
use crate::state::{Breach, Delete, Entry, Late, Lease, Mark, Stage, State, Step, Token, Transaction};

/// The reply to a touch.
pub(crate) enum Touched {
    Renewed,
    /// There is no entry: the lease is still held.
    Gone,
    Fenced,
}

impl State {
    /// `SET L token NX`, the first half of `acquire`. Returns whether the lease was granted.
    pub(crate) fn set_lease(&mut self, token: Token) -> bool {
        // The `GET` that follows shows the holder's token. If that is our own, because the token was used before, it
        // looks like a grant.
        let granted = self.lease.is_none_or(|lease| lease == Lease::Held(token));
        if granted {
            self.lease = Some(Lease::Held(token));
        }
        granted
    }

    /// `take_over.lua`: sets L to the token if the mark that was seen still lies there. Returns whether it did.
    pub(crate) fn take_over(&mut self, guards: Guards, token: Token, mark: Mark) -> bool {
        if guards.has(Guard::MarkCheck) && self.lease != Some(Lease::Marked(mark)) {
            return false;
        }
        self.check_no_other_holds(token);
        self.lease = Some(Lease::Held(token));
        true
    }

    /// `fill.lua`: stores a row, or deletes K and leaves a mark. Returns whether the fill was accepted.
    pub(crate) fn fill(&mut self, guards: Guards, token: Token, row: Option<Row>) -> bool {
        if !self.may_write(guards, token) {
            return false;
        }
        self.put(row.map(Entry::Whole));
        self.lease = if row.is_some() { None } else { Some(Lease::Marked(Mark::Unstored)) };
        true
    }

    /// `touch.lua`: gives the entry a new lifetime, which ends the lease. `row` is the row that the loader read and took
    /// for the record that it was shown.
    pub(crate) fn touch(&mut self, guards: Guards, token: Token, row: Row) -> Touched {
        if !self.may_write(guards, token) {
            return Touched::Fenced;
        }
        let found = match self.entry {
            Some(Entry::Whole(found) | Entry::Stale(found)) => found,
            Some(Entry::Mixed) | None => return Touched::Gone,
        };
        if !found.looks_like(row) {
            self.breach = Some(Breach::WrongRecordRenewed);
        }
        // Its values are those of the row that was read, so from now on it is that row.
        self.put(Some(Entry::Whole(if found.looks_like(row) { row } else { found })));
        self.lease = None;
        Touched::Renewed
    }

    /// `abandon.lua`.
    pub(crate) fn abandon(&mut self, token: Token) {
        self.lease = self.lease.filter(|&lease| lease != Lease::Held(token));
    }

    /// `mark.lua`: replaces the lease by a mark.
    pub(crate) fn mark(&mut self, guards: Guards, token: Token, mark: Mark) {
        if self.may_write(guards, token) {
            self.check_no_other_holds(token);
            self.lease = Some(Lease::Marked(mark));
        }
    }

    fn check_no_other_holds(&mut self, token: Token) {
        if matches!(self.lease, Some(Lease::Held(holder)) if holder != token) {
            self.breach = Some(Breach::LeaseTaken);
        }
    }

    fn may_write(&self, guards: Guards, token: Token) -> bool {
        self.lease == Some(Lease::Held(token)) || !guards.has(Guard::TokenCheck)
    }

    /// The record or not-found entry at K, unless it is stale.
    pub(crate) fn live(&self) -> Option<Row> {
        match self.entry {
            Some(Entry::Whole(row)) => Some(row),
            Some(Entry::Stale(_) | Entry::Mixed) | None => None,
        }
    }

    /// The record at K, once it is stale.
    pub(crate) fn stale(&self) -> Option<Row> {
        match self.entry {
            Some(Entry::Stale(row)) => Some(row),
            Some(Entry::Whole(_) | Entry::Mixed) | None => None,
        }
    }

    /// `DEL` of one key: one of the two commands of `invalidate`.
    pub(crate) fn delete(&mut self, guards: Guards, what: Delete) {
        match what {
            Delete::Lease if guards.has(Guard::Revocation) => self.lease = None,
            Delete::Lease => {}
            Delete::Entry => self.put(None),
        }
    }

    /// `EXEC`. Returns whether it was carried out.
    pub(crate) fn exec(&mut self, guards: Guards, transaction: Transaction) -> bool {
        let Transaction { change, commit, shown, refused } = transaction;
        if shown.is_none() && !guards.has(Guard::AtomicRevocation) {
            self.lease = None;
            return true;
        }
        if refused {
            return false;
        }
        let becomes = match shown {
            // It may have become stale since.
            Some(Entry::Whole(row)) if row.present && self.stale().is_some() => {
                Some(Entry::Stale(change.of(row, commit)))
            }
            Some(Entry::Whole(row)) if row.present => Some(Entry::Whole(change.of(row, commit))),
            Some(Entry::Whole(_)) if !guards.has(Guard::WholeNotFound) => Some(Entry::Mixed),
            Some(_) | None => None,
        };
        self.put(becomes);
        self.lease = None;
        true
    }

    /// Carries out a command that its sender has given up on.
    pub(crate) fn deliver(&mut self, guards: Guards, late: Late) {
        match late {
            Late::Acquire { token } => {
                self.set_lease(token);
            }
            Late::TakeOver { token, mark } => {
                self.take_over(guards, token, mark);
            }
            Late::Fill { token, row } => {
                self.fill(guards, token, row);
            }
            Late::Touch { token, row } => {
                self.touch(guards, token, row);
            }
            Late::Mark { token, mark } => self.mark(guards, token, mark),
            Late::Update(transaction) => {
                self.exec(guards, transaction);
            }
            Late::Abandon { token } => self.abandon(token),
            Late::Invalidate => {
                let [first, _] = guards.pipeline();
                self.delete(guards, first);
                self.leave_behind(Late::SecondDelete);
            }
            Late::SecondDelete => {
                let [_, second] = guards.pipeline();
                self.delete(guards, second);
            }
        }
    }

    /// Forgets late commands that can no longer have an effect, because a guard stops them. This merges states that
    /// can't be told apart, so there are fewer to explore.
    pub(crate) fn forget_spent_commands(&mut self, guards: Guards) {
        let (lease, late) = (self.lease, self.late);
        let brings = |late: &Late, token| match *late {
            Late::Acquire { token: brought } | Late::TakeOver { token: brought, .. } => brought == token,
            _ => false,
        };
        let is_spent = |command: &Late| match *command {
            // Its token is not at L, and no late command can put it there.
            Late::Fill { token, .. }
            | Late::Touch { token, .. }
            | Late::Abandon { token }
            | Late::Mark { token, .. } => {
                lease != Some(Lease::Held(token)) && !late.iter().flatten().any(|late| brings(late, token))
            }
            Late::Update(transaction) => transaction.refused,
            Late::Acquire { .. } | Late::TakeOver { .. } | Late::Invalidate | Late::SecondDelete => false,
        };
        if guards.are_all_in() && late.iter().flatten().any(is_spent) {
            self.late = late.map(|command| command.filter(|command| !is_spent(command)));
            self.late.sort_unstable();
        }
    }

    /// Changes K. Transactions that watch it are refused, even if the new entry equals the old one; but deleting a
    /// missing entry changes nothing.
    pub(crate) fn put(&mut self, entry: Option<Entry>) {
        if self.entry.is_none() && entry.is_none() {
            return;
        }
        self.entry = entry;
        self.no_entry_stood();
        for writer in &mut self.writers {
            if let Stage::Deciding(transaction) = &mut writer.stage {
                transaction.refused = true;
            }
        }
        for late in &mut self.late {
            if let Some(Late::Update(transaction)) = late {
                transaction.refused = true;
            }
        }
    }

    /// The record's TTL ends. Transactions that watch K don't notice.
    pub(crate) fn become_stale(&mut self) {
        if let Some(row) = self.live() {
            self.entry = Some(Entry::Stale(row));
            self.no_entry_stood();
        }
    }

    /// The entry that was there at a grant is no longer the same, or no longer live.
    fn no_entry_stood(&mut self) {
        for flight in self.flights_mut() {
            if let Step::Looking { stood, .. } | Step::Granted { stood, .. } = &mut flight.step {
                *stood = false;
            }
        }
    }
}
