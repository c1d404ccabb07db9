//! The protocol's commands and scripts on the server, each of them atomic.
//!
//! Knows K, L and the transactions that watch K; nothing about calls or flights.

use crate::guard::{Guard, Guards};
use crate::state::{Delete, Entry, Late, Row, Stage, State, Step, Token, Transaction};

impl State {
    /// `SET L token NX`, the first half of `acquire`. Returns whether the lease was granted.
    pub(crate) fn set_lease(&mut self, token: Token) -> bool {
        // The `GET` that follows shows the holder's token. If that is our own, because the token was used before, it
        // looks like a grant.
        let granted = self.lease.is_none_or(|holder| holder == token);
        if granted {
            self.lease = Some(token);
        }
        granted
    }

    /// `fill.lua`. Returns whether the fill was accepted.
    pub(crate) fn fill(&mut self, guards: Guards, token: Token, row: Row) -> bool {
        if guards.has(Guard::TokenCheck) && self.lease != Some(token) {
            return false;
        }
        self.put(Some(Entry::Whole(row)));
        self.lease = None;
        true
    }

    /// `abandon.lua`.
    pub(crate) fn abandon(&mut self, token: Token) {
        self.lease = self.lease.filter(|&holder| holder != token);
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
            Late::Fill { token, row } => {
                self.fill(guards, token, row);
            }
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
        let is_spent = |command: &Late| match *command {
            // Its token is not at L, and no late `acquire` can put it there.
            Late::Fill { token, .. } | Late::Abandon { token } => {
                lease != Some(token) && !late.contains(&Some(Late::Acquire { token }))
            }
            Late::Update(transaction) => transaction.refused,
            Late::Acquire { .. } | Late::Invalidate | Late::SecondDelete => false,
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
        for flight in self.flights_mut() {
            if let Step::Looking { stood, .. } | Step::Granted { stood, .. } = &mut flight.step {
                *stood = false;
            }
        }
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
}
