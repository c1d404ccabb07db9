//! Judges a round that was played: checks it key by key, and has the first violations told.

use crate::check::check;
use crate::history::{Call, Commit};
use crate::story;
use crate::wire::Round;

/// As many violations are told; more of one round would say the same.
const STORIES: usize = 3;

/// A round that was played, with the log of each key.
pub(crate) struct Played {
    pub(crate) round: Round,
    pub(crate) logs: Vec<Vec<Commit>>,
    pub(crate) calls: Vec<Call>,
}

pub(crate) struct Judgement {
    pub(crate) round: Round,
    pub(crate) reads: u64,
    pub(crate) commits: u64,
    pub(crate) worst_staleness: u64,
    pub(crate) violations: u64,
    pub(crate) stories: Vec<String>,
}

pub(crate) fn judge(played: Played) -> Judgement {
    let Played { round, logs, mut calls } = played;
    let mut judgement =
        Judgement { round, reads: 0, commits: 0, worst_staleness: 0, violations: 0, stories: Vec::new() };
    calls.sort_by_key(|call| call.key);
    let mut rest = calls.as_slice();
    for (key, log) in (0..).zip(&logs) {
        let (calls, others) = rest.split_at(rest.partition_point(|call| call.key <= key));
        rest = others;
        judgement.add(key, log, calls);
    }
    judgement
}

impl Judgement {
    fn add(&mut self, key: u32, log: &[Commit], calls: &[Call]) {
        let verdict = check(log, calls);
        self.reads += verdict.reads;
        self.commits += log.len() as u64 - 1;
        self.worst_staleness = self.worst_staleness.max(verdict.worst_staleness);
        self.violations += verdict.mistakes.len() as u64;
        // The first of a key is the nearest to its cause.
        if let Some((wrong, mistake)) = verdict.mistakes.first()
            && self.stories.len() < STORIES
        {
            let id = format!("{}.{key}", self.round.number);
            self.stories.push(story::tell(&id, log, calls, *wrong, *mistake));
        }
    }
}
