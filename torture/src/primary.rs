//! The primary database: versioned rows, a commit log for each key, and row locks.
//!
//! A commit's time is taken inside it, under the same lock as every read: nobody sees a version before its time, and a
//! read after that time sees no older one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock;
use crate::history::Commit;
use crate::link::Sender;
use crate::row::{Change, Row};
use crate::wire::{Question, State, ToWorker};

#[derive(Default)]
pub(crate) struct Primary {
    rounds: Mutex<HashMap<u64, Vec<Key>>>,
}

struct Key {
    log: Vec<Commit>,
    /// The process that holds the row's lock.
    holder: Option<u16>,
    waiting: VecDeque<Commission>,
}

/// A commit that waits for the row's lock, and who sent it.
struct Commission {
    asker: Asker,
    change: Change,
}

/// The worker and the question to send the answer to.
pub(crate) struct Asker {
    pub(crate) process: u16,
    pub(crate) ticket: u64,
    pub(crate) sender: Sender,
}

impl Asker {
    fn answer(&self, state: State) {
        self.sender.send(&ToWorker::Answer { ticket: self.ticket, state });
    }
}

impl Key {
    /// Some rows exist from the beginning.
    fn new(index: u32) -> Self {
        let row = (!index.is_multiple_of(4)).then(|| Row::created(0));
        Self { log: vec![Commit { at: clock::now(), row }], holder: None, waiting: VecDeque::new() }
    }

    fn row(&self) -> Option<Row> {
        self.log.last().and_then(|commit| commit.row)
    }

    fn state(&self, created: bool) -> State {
        State { version: self.log.len() as u64 - 1, row: self.row(), created }
    }

    fn commit(&mut self, change: Change) -> State {
        let (before, version) = (self.row(), self.log.len() as u64);
        let after = match (change, before) {
            (Change::Put(fields), Some(row)) => Some(row.with(fields, version)),
            (Change::Put(_), None) => Some(Row::created(version)),
            (Change::Delete, Some(_)) => None,
            (Change::Delete, None) => return self.state(false),
        };
        self.log.push(Commit { at: clock::now(), row: after });
        self.state(before.is_none())
    }

    fn grant_next(&mut self) {
        self.holder = None;
        if let Some(Commission { asker, change }) = self.waiting.pop_front() {
            self.holder = Some(asker.process);
            asker.answer(self.commit(change));
        }
    }
}

impl Primary {
    /// Makes the rows of a round.
    pub(crate) fn open(&self, round: u64, keys: u32) {
        self.rounds().insert(round, (0..keys).map(Key::new).collect());
    }

    /// Ends a round, and returns the log of each key.
    pub(crate) fn close(&self, round: u64) -> Vec<Vec<Commit>> {
        let keys = self.rounds().remove(&round).unwrap_or_default();
        keys.into_iter().map(|key| key.log).collect()
    }

    pub(crate) fn ask(&self, asker: Asker, question: Question) {
        let (Question::Read { round, key } | Question::Commit { round, key, .. }) = question;
        let mut rounds = self.rounds();
        let Some(row) = row(&mut rounds, round, key) else {
            // A load of a round that is over: its result isn't used.
            return asker.answer(State { version: 0, row: None, created: false });
        };
        match question {
            Question::Read { .. } => asker.answer(row.state(false)),
            Question::Commit { change, lock: false, .. } => asker.answer(row.commit(change)),
            Question::Commit { change, lock: true, .. } => {
                row.waiting.push_back(Commission { asker, change });
                if row.holder.is_none() {
                    row.grant_next();
                }
            }
        }
    }

    pub(crate) fn unlock(&self, round: u64, key: u32) {
        if let Some(row) = row(&mut self.rounds(), round, key) {
            row.grant_next();
        }
    }

    /// Releases the locks of a process that has ended.
    pub(crate) fn release(&self, process: u16) {
        for row in self.rounds().values_mut().flatten() {
            row.waiting.retain(|commission| commission.asker.process != process);
            if row.holder == Some(process) {
                row.grant_next();
            }
        }
    }

    fn rounds(&self) -> MutexGuard<'_, HashMap<u64, Vec<Key>>> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn row(rounds: &mut HashMap<u64, Vec<Key>>, round: u64, key: u32) -> Option<&mut Key> {
    rounds.get_mut(&round)?.get_mut(usize::try_from(key).ok()?)
}
