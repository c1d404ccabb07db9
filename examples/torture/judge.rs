//! Judges a round that was played: checks it key by key, and has the first violations told.

use crate::check::{Mistake, check};
use crate::faults::Failover;
use crate::history::{Call, Commit};
use crate::story;
use crate::wire::Round;
use crate::worker::{LONGEST_LOAD, LONGEST_TTL};

/// As many violations are told; more of one round would say the same.
const STORIES: usize = 3;

/// A round that was played, with the log of each key.
pub(crate) struct Played {
    pub(crate) round: Round,
    pub(crate) logs: Vec<Vec<Commit>>,
    pub(crate) calls: Vec<Call>,
    pub(crate) failovers: Vec<Failover>,
}

pub(crate) struct Judgement {
    pub(crate) round: Round,
    pub(crate) reads: u64,
    pub(crate) commits: u64,
    pub(crate) worst_staleness: u64,
    pub(crate) violations: u64,
    /// Mistakes that a failover explains, and how long after its promotion the last of them was.
    pub(crate) explained: u64,
    pub(crate) last_explained: u64,
    pub(crate) stories: Vec<String>,
}

pub(crate) fn judge(played: Played) -> Judgement {
    let Played { round, logs, mut calls, failovers } = played;
    let mut judgement = Judgement {
        round,
        reads: 0,
        commits: 0,
        worst_staleness: 0,
        violations: 0,
        explained: 0,
        last_explained: 0,
        stories: Vec::new(),
    };
    calls.sort_by_key(|call| call.key);
    let mut rest = calls.as_slice();
    for (key, log) in (0..).zip(&logs) {
        let (calls, others) = rest.split_at(rest.partition_point(|call| call.key <= key));
        rest = others;
        judgement.add(key, log, calls, &failovers);
    }
    judgement
}

impl Judgement {
    fn add(&mut self, key: u32, log: &[Commit], calls: &[Call], failovers: &[Failover]) {
        let mut verdict = check(log, calls);
        verdict.mistakes.retain(|(wrong, mistake)| {
            let Some(after) = explained(calls, *wrong, *mistake, failovers) else { return true };
            self.explained += 1;
            self.last_explained = self.last_explained.max(after);
            false
        });
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

/// How long after a promotion the call was whose mistake it explains: replicas are told of writes after they are confirmed,
/// so the last ones before the kill may be lost. If that is an invalidation, the old entry is back until its TTL ends; and
/// if it is that of a lease, its load may still store what it has read, once.
fn explained(calls: &[Call], wrong: usize, mistake: Mistake, failovers: &[Failover]) -> Option<u64> {
    /// The time that a busy machine adds.
    const LAG: u64 = 500;
    const BOUND: u64 = (LONGEST_LOAD + LONGEST_TTL + LAG) * 1_000_000;
    let confirmed = match mistake {
        Mistake::TooOld { floor, .. } => calls[floor.by?].end,
        Mistake::LeaseOverLiveEntry { .. } => 0,
        Mistake::TooNew { .. } | Mistake::Torn | Mistake::Unreadable => return None,
    };
    let Call { start, end, .. } = calls[wrong];
    let explains = |failover: &&Failover| {
        confirmed <= failover.promoted && end >= failover.killed && start <= failover.promoted + BOUND
    };
    failovers.iter().find(explains).map(|failover| start.saturating_sub(failover.promoted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Floor;
    use crate::history::{Ended, Kind, Read};

    const SECOND: u64 = 1_000_000_000;

    fn call(kind: Kind, start: u64, end: u64) -> Call {
        let (ended, read) = (Ended::Done, Read::Nothing);
        Call { key: 0, process: 0, task: 0, kind, start, end, ended, read, source: None, committed: None }
    }

    #[test]
    fn a_failover_explains_what_it_may_have_lost_and_only_until_the_ttl_ends() {
        let failovers = [Failover { killed: 10 * SECOND, promoted: 12 * SECOND }];
        let too_old = Mistake::TooOld { version: 0, floor: Floor { version: 1, by: Some(0) } };
        let after = |invalidated: u64, read: u64, mistake: Mistake| {
            let calls = [call(Kind::Invalidate, invalidated - 1, invalidated), call(Kind::Get, read, read + 1)];
            explained(&calls, 1, mistake, &failovers)
        };
        assert_eq!(after(9 * SECOND, 12 * SECOND + 5, too_old), Some(5));
        assert_eq!(after(9 * SECOND, 9 * SECOND + 5, too_old), None, "before the kill");
        assert_eq!(after(12 * SECOND + 1, 12 * SECOND + 5, too_old), None, "confirmed after the promotion");
        assert_eq!(after(9 * SECOND, 13 * SECOND, too_old), None, "later than any entry lives");
        assert_eq!(after(9 * SECOND, 12 * SECOND + 5, Mistake::Torn), None);
        assert_eq!(explained(&[call(Kind::Get, 1, 2)], 0, too_old, &[]), None);
    }
}
