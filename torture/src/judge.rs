//! Judges a finished round: checks it key by key, and has the first violations printed.

use crate::check::{Figures, Mistake, check};
use crate::faults::Failover;
use crate::history::{Call, Commit, Kind};
use crate::story;
use crate::wire::Round;
use crate::worker::LONGEST_LOAD;

/// The most violations that are printed: more from one round add nothing.
const STORIES: usize = 3;

/// A finished round, with the log of each key.
pub(crate) struct Played {
    pub(crate) round: Round,
    pub(crate) logs: Vec<Vec<Commit>>,
    pub(crate) calls: Vec<Call>,
    pub(crate) failovers: Vec<Failover>,
    /// The TTL of entries, in milliseconds.
    pub(crate) longest_ttl: u64,
}

pub(crate) struct Judgement {
    pub(crate) round: Round,
    pub(crate) figures: Figures,
    pub(crate) commits: u64,
    pub(crate) violations: u64,
    /// The number of violations that were still there when nobody wrote any more.
    pub(crate) old_for_ever: u64,
    /// The mistakes that a failover explains, and how long after its promotion the last of them was.
    pub(crate) explained: u64,
    pub(crate) last_explained: u64,
    pub(crate) stories: Vec<String>,
}

pub(crate) fn judge(played: Played) -> Judgement {
    let Played { round, logs, mut calls, failovers, longest_ttl } = played;
    let mut judgement = Judgement {
        round,
        figures: Figures::default(),
        commits: 0,
        violations: 0,
        old_for_ever: 0,
        explained: 0,
        last_explained: 0,
        stories: Vec::new(),
    };
    calls.sort_by_key(|call| call.key);
    let mut rest = calls.as_slice();
    for (key, log) in (0..).zip(&logs) {
        let (calls, others) = rest.split_at(rest.partition_point(|call| call.key <= key));
        rest = others;
        judgement.add(key, log, calls, |wrong, mistake| explained(calls, wrong, mistake, &failovers, longest_ttl));
    }
    judgement
}

impl Judgement {
    fn add(&mut self, key: u32, log: &[Commit], calls: &[Call], explained: impl Fn(usize, Mistake) -> Option<u64>) {
        let mut verdict = check(log, calls);
        verdict.mistakes.retain(|(wrong, mistake)| {
            let Some(after) = explained(*wrong, *mistake) else { return true };
            self.explained += 1;
            self.last_explained = self.last_explained.max(after);
            false
        });
        self.figures.add(verdict.figures);
        self.commits += log.len() as u64 - 1;
        let old_for_ever = verdict.mistakes.iter().filter(|(_, mistake)| matches!(mistake, Mistake::OldForEver { .. }));
        self.old_for_ever += old_for_ever.count() as u64;
        self.violations += verdict.mistakes.len() as u64;
        // The first violation of a key is closest to its cause.
        if let Some((wrong, mistake)) = verdict.mistakes.first()
            && self.stories.len() < STORIES
        {
            let id = format!("{}.{key}", self.round.number);
            self.stories.push(story::tell(&id, log, calls, *wrong, *mistake));
        }
    }
}

/// How long after a promotion a call may make a mistake that the failover explains. Replicas get writes after they are
/// confirmed, so the last ones before the kill may be lost, until their writer has moved and makes them again. The writer's own
/// process never gets what they have replaced. If a lease is lost or comes back, another load may begin although there is an
/// entry. A failover doesn't explain an old record that is only in a near cache at the end of a round.
fn explained(calls: &[Call], wrong: usize, mistake: Mistake, failovers: &[Failover], longest_ttl: u64) -> Option<u64> {
    /// All processes have moved by then, in milliseconds.
    const SOON: u64 = 1_000;
    /// Extra time for a busy machine.
    const LAG: u64 = 500;
    let is_in_redis = || calls.iter().any(|call| call.kind == Kind::FenceInspect && call.read == calls[wrong].read);
    let bound = match mistake {
        Mistake::LeaseOverLiveEntry { .. } => LONGEST_LOAD + longest_ttl + LAG,
        _ => SOON,
    };
    let bound = bound * 1_000_000;
    let confirmed = match mistake {
        Mistake::TooOld { floor, .. } => {
            let (writer, reader) = (&calls[floor.by?], &calls[wrong]);
            if (writer.process, writer.backend) == (reader.process, reader.backend) {
                return None;
            }
            writer.end
        }
        Mistake::LeaseOverLiveEntry { .. } => 0,
        Mistake::OldForEver { .. } if is_in_redis() => 0,
        Mistake::OldForEver { .. } => return None,
        Mistake::TooNew { .. } | Mistake::Torn | Mistake::Unreadable => return None,
    };
    let Call { start, end, .. } = calls[wrong];
    let explains = |failover: &&Failover| {
        confirmed <= failover.promoted && end >= failover.killed && start <= failover.promoted + bound
    };
    failovers.iter().find(explains).map(|failover| start.saturating_sub(failover.promoted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::floor::Floor;
    use crate::history::{Ended, Kind, Read};
    use crate::worker::LONGEST_TTL;

    const SECOND: u64 = 1_000_000_000;

    fn call(kind: Kind, start: u64, end: u64) -> Call {
        let (ended, read, backend) = (Ended::Done, Read::Nothing, Some(0));
        let process = u16::from(kind == Kind::Get);
        Call { key: 0, process, task: 0, backend, kind, start, end, ended, read, source: None, committed: None }
    }

    #[test]
    fn a_failover_explains_what_it_may_have_lost_and_only_until_the_ttl_ends() {
        let failovers = [Failover { killed: 10 * SECOND, promoted: 12 * SECOND }];
        let too_old = Mistake::TooOld { version: 0, floor: Floor { version: 1, by: Some(0) } };
        let after = |invalidated: u64, read: u64, mistake: Mistake| {
            let calls = [call(Kind::Invalidate, invalidated - 1, invalidated), call(Kind::Get, read, read + 1)];
            explained(&calls, 1, mistake, &failovers, LONGEST_TTL)
        };
        assert_eq!(after(9 * SECOND, 12 * SECOND + 5, too_old), Some(5));
        assert_eq!(after(9 * SECOND, 9 * SECOND + 5, too_old), None, "before the kill");
        assert_eq!(after(12 * SECOND + 1, 12 * SECOND + 5, too_old), None, "confirmed after the promotion");
        assert_eq!(after(9 * SECOND, 13 * SECOND + 1, too_old), None, "by then the write was made again");
        let own = [call(Kind::Get, 9 * SECOND - 1, 9 * SECOND), call(Kind::Get, 12 * SECOND, 12 * SECOND + 1)];
        assert_eq!(explained(&own, 1, too_old, &failovers, LONGEST_TTL), None, "the process that has written it");
        assert_eq!(after(9 * SECOND, 12 * SECOND + 5, Mistake::Torn), None);
        let at_fence = [
            call(Kind::Fence, 12 * SECOND, 12 * SECOND + 1),
            call(Kind::FenceInspect, 12 * SECOND + 2, 12 * SECOND + 3),
        ];
        let old = Mistake::OldForEver { version: 0, last: 1 };
        assert_eq!(explained(&at_fence, 0, old, &failovers, LONGEST_TTL), Some(0), "it is in Redis");
        assert_eq!(explained(&at_fence[..1], 0, old, &failovers, LONGEST_TTL), None, "a near cache alone has it");
        assert_eq!(explained(&[call(Kind::Get, 1, 2)], 0, too_old, &[], LONGEST_TTL), None);
    }
}
