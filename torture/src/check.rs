//! The checker: decides whether every result of one key's calls was right. It sorts the calls by time and goes through
//! them once.
//!
//! The *floor* at a time is the newest version that is guaranteed by a call which has returned by then: an invalidation
//! guarantees the version that the row had when the call started, an update in place the version that its caller had
//! committed. A result must be the row as it was at one version, no older than the floor when the call started and no
//! newer than the last commit when it ended. (Reads don't raise the floor, because a load around the cache may be newer
//! than an entry that nobody has invalidated yet.) For answers of a near cache, `floor` has the guarantee. When nobody
//! writes any more, the result must be the last version.
//!
//! A record that was served from the cache was stored by a fill, so its load held a lease from before the load began
//! until the fill. If there was a live entry when the load began, it had been filled before that lease was granted: the
//! grant was wrong. A load that returns no row, fails, or is fenced proves nothing, nor does a record that nobody
//! reads.

use crate::floor::{Floor, Floors};
use crate::history::{Call, Commit, Ended, Kind, Read, Seen};

/// The mistake in a call's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// The version that was returned, and the one that was guaranteed.
    TooOld {
        version: u64,
        floor: Floor,
    },
    /// Not the last version, although nobody wrote any more.
    OldForEver {
        version: u64,
        last: u64,
    },
    /// Newer than the last version when the call ended.
    TooNew {
        last: u64,
    },
    /// Not the row of any one version.
    Torn,
    Unreadable,
    LeaseOverLiveEntry {
        over: u64,
    },
}

/// The result for one key.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// By the index of the call.
    pub(crate) mistakes: Vec<(usize, Mistake)>,
    pub(crate) figures: Figures,
}

/// Statistics that are collected while calls are checked.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    pub(crate) reads: u64,
    /// The longest time between the commit that superseded a version and the start of a call that returned it.
    pub(crate) worst_staleness: u64,
    /// The longest time for which a near cache returned a version after a newer one was guaranteed.
    pub(crate) near_staleness: u64,
    /// Reads when nobody wrote any more, and the number of them that near caches answered.
    pub(crate) at_fence: u64,
    pub(crate) near_at_fence: u64,
}

impl Figures {
    pub(crate) fn add(&mut self, other: Self) {
        self.reads += other.reads;
        self.worst_staleness = self.worst_staleness.max(other.worst_staleness);
        self.near_staleness = self.near_staleness.max(other.near_staleness);
        self.at_fence += other.at_fence;
        self.near_at_fence += other.near_at_fence;
    }
}

/// A call that starts when another ends isn't bound by its guarantee: at equal times starts are sorted first, and ends
/// last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Start,
    Commit,
    End,
}

/// The floor and the commits when a call started.
#[derive(Debug, Clone, Copy, Default)]
struct Start {
    floor: Floor,
    version: u64,
}

/// Checks the calls of one key against the log of its commits.
pub(crate) fn check(log: &[Commit], calls: &[Call]) -> Verdict {
    let mut points: Vec<(u64, Moment, usize)> = Vec::with_capacity(log.len() + 2 * calls.len());
    points.extend(log.iter().enumerate().map(|(index, commit)| (commit.at, Moment::Commit, index)));
    for (index, call) in calls.iter().enumerate().filter(|(_, call)| call.kind != Kind::Load) {
        points.extend([(call.start, Moment::Start, index), (call.end, Moment::End, index)]);
    }
    points.sort_unstable();

    let mut verdict = Verdict::default();
    let mut starts = vec![Start::default(); calls.len()];
    let (mut last, mut last_absent) = (0, None);
    let mut floors = Floors::default();
    for (_, moment, index) in points {
        match moment {
            Moment::Commit => {
                last = index;
                if log[index].row.is_none() {
                    last_absent = Some(index);
                }
            }
            Moment::Start => starts[index] = Start { floor: floors.due(&calls[index]), version: last as u64 },
            Moment::End => {
                let (call, start) = (&calls[index], starts[index]);
                let guaranteed = call.guarantees(start.version);
                // A refresh reads after its own invalidation.
                let own = Floor { version: start.version, by: Some(index) };
                let at_least = if call.kind == Kind::Refresh { start.floor.or_newer(own) } else { start.floor };
                let log = Log { commits: log, last, last_absent, floors: &floors };
                verdict.judge(index, call, at_least, &log);
                if let Some(version) = guaranteed {
                    floors.rise(call, Floor { version, by: Some(index) });
                }
            }
        }
    }
    verdict
}

/// The part of the log that existed when a call ended.
struct Log<'a> {
    commits: &'a [Commit],
    last: usize,
    last_absent: Option<usize>,
    floors: &'a Floors,
}

impl Verdict {
    fn judge(&mut self, index: usize, call: &Call, floor: Floor, log: &Log) {
        if !matches!(call.ended, Ended::Done) {
            return;
        }
        let found = match call.read {
            Read::Nothing => return,
            Read::Unreadable => Err(Mistake::Unreadable),
            Read::Absent => log.version_absent(),
            Read::Record(seen) => log.version_of(seen),
        };
        let last = log.last as u64;
        let found = found.and_then(|version| match () {
            () if call.is_fence() && version < last => Err(Mistake::OldForEver { version, last }),
            () if version < floor.version => Err(Mistake::TooOld { version, floor }),
            () => Ok(version),
        });
        let figures = &mut self.figures;
        figures.reads += 1;
        figures.at_fence += u64::from(call.is_fence());
        figures.near_at_fence += u64::from(call.is_fence() && call.is_near_hit());
        match found {
            Ok(version) => {
                let superseded = usize::try_from(version).ok().and_then(|version| log.commits.get(version + 1));
                let stale = superseded.map_or(0, |commit| call.start.saturating_sub(commit.at));
                figures.worst_staleness = figures.worst_staleness.max(stale);
                if call.is_near_hit() {
                    figures.near_staleness = figures.near_staleness.max(log.floors.overdue(version, call.start));
                }
            }
            Err(mistake) => self.mistakes.push((index, mistake)),
        }
        if let Read::Record(Seen { over: Some(over), .. }) = call.read
            && call.read_the_cache()
        {
            self.mistakes.push((index, Mistake::LeaseOverLiveEntry { over }));
        }
    }
}

impl Log<'_> {
    /// The latest version without a row.
    fn version_absent(&self) -> Result<u64, Mistake> {
        let version = self.last_absent.ok_or(Mistake::TooNew { last: self.last as u64 })?;
        Ok(version as u64)
    }

    fn version_of(&self, seen: Seen) -> Result<u64, Mistake> {
        let row = seen.row.ok_or(Mistake::Torn)?;
        let version = row.version();
        if version > self.last as u64 {
            return Err(Mistake::TooNew { last: self.last as u64 });
        }
        let at_version = usize::try_from(version).ok().and_then(|version| self.commits.get(version)?.row);
        if at_version != Some(row) {
            return Err(Mistake::Torn);
        }
        Ok(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Source;
    use crate::near::BOUND_NANOS;
    use crate::row::{Fields, NoteChange, Row};

    const STOCK: Fields = Fields { price: false, stock: true, weight: false, name: false, note: NoteChange::Removed };

    /// Version 0 from the beginning, version 1 at 100, deleted at 200, created again at 300.
    fn log() -> Vec<Commit> {
        let first = Row::created(0);
        let rows = [Some(first), Some(first.with(STOCK, 1)), None, Some(Row::created(3))];
        (0..).zip(rows).map(|(index, row)| Commit { at: index * 100, row }).collect()
    }

    fn call(kind: Kind, start: u64, end: u64, read: Read) -> Call {
        let source = (kind == Kind::Lookup).then_some(Source::Hit);
        let (ended, backend, committed) = (Ended::Done, Some(0), None);
        Call { key: 0, process: 0, task: 0, backend, kind, start, end, ended, read, source, committed }
    }

    fn version(version: usize) -> Read {
        Read::Record(Seen { row: log()[version].row, load: 7, over: None })
    }

    fn mistakes(calls: &[Call]) -> Vec<(usize, Mistake)> {
        check(&log(), calls).mistakes
    }

    #[test]
    fn finds_nothing_in_a_history_that_is_right() {
        let calls = [
            call(Kind::Lookup, 10, 20, version(0)),
            // Nobody has invalidated yet: stale, but not wrong.
            call(Kind::Peek, 130, 140, version(0)),
            call(Kind::Invalidate, 150, 160, Read::Nothing),
            // Both of these overlap a commit: old and new are right.
            call(Kind::Get, 155, 210, Read::Absent),
            call(Kind::Get, 155, 210, version(0)),
            call(Kind::Lookup, 170, 210, version(1)),
            call(Kind::Invalidate, 220, 230, Read::Nothing),
            call(Kind::Peek, 240, 250, Read::Nothing),
            call(Kind::Get, 240, 250, Read::Absent),
            Call { committed: Some(3), ..call(Kind::UpdateFields, 310, 320, Read::Nothing) },
            call(Kind::Refresh, 330, 340, version(3)),
        ];
        let Verdict { mistakes, figures } = check(&log(), &calls);
        assert_eq!((mistakes, figures.reads, figures.worst_staleness), (vec![], 7, 55));
    }

    #[test]
    fn finds_a_result_that_is_too_old() {
        let guards = [
            call(Kind::Invalidate, 110, 120, Read::Nothing),
            Call { committed: Some(1), ..call(Kind::Modify, 110, 120, version(1)) },
            Call { ended: Ended::NothingThere, committed: Some(1), ..call(Kind::UpdateField, 99, 120, Read::Nothing) },
        ];
        for guard in guards {
            let floor = Floor { version: 1, by: Some(0) };
            let late = call(Kind::Lookup, 121, 130, version(0));
            assert_eq!(mistakes(&[guard.clone(), late]), [(1, Mistake::TooOld { version: 0, floor })]);
            let at_once = call(Kind::Lookup, 120, 130, version(0));
            assert_eq!(mistakes(&[guard, at_once]), []);
        }
        let floor = Floor { version: 3, by: Some(0) };
        let invalidation = call(Kind::InvalidateMany, 310, 320, Read::Nothing);
        let calls = [invalidation, call(Kind::Get, 330, 340, Read::Absent)];
        assert_eq!(mistakes(&calls), [(1, Mistake::TooOld { version: 2, floor })]);
        let own = Floor { version: 1, by: Some(0) };
        let calls = [call(Kind::Refresh, 110, 120, version(0))];
        assert_eq!(mistakes(&calls), [(0, Mistake::TooOld { version: 0, floor: own })]);
    }

    #[test]
    fn asks_nothing_of_a_call_that_failed_was_dropped_or_started_before_the_commit() {
        for ended in [Ended::Failed, Ended::Dropped] {
            let invalidation = Call { ended, ..call(Kind::Invalidate, 110, 120, Read::Nothing) };
            assert_eq!(mistakes(&[invalidation, call(Kind::Lookup, 130, 140, version(0))]), []);
        }
        let early = call(Kind::Invalidate, 90, 120, Read::Nothing);
        assert_eq!(mistakes(&[early, call(Kind::Lookup, 130, 140, version(0))]), []);
    }

    #[test]
    fn gives_near_caches_time_for_writes_over_other_backends() {
        let near_hit = |start| {
            let source = Some(Source::NearHit);
            Call { source, ..call(Kind::Lookup, start, start + 10, version(1)) }
        };
        let floor = Floor { version: 3, by: Some(0) };
        let too_old = [(1, Mistake::TooOld { version: 1, floor })];
        let invalidation = call(Kind::Invalidate, 310, 320, Read::Nothing);
        assert_eq!(mistakes(&[invalidation.clone(), near_hit(321)]), too_old);
        for elsewhere in [Call { process: 1, ..invalidation.clone() }, Call { backend: Some(1), ..invalidation }] {
            let Verdict { mistakes: none, figures } = check(&log(), &[elsewhere.clone(), near_hit(320 + BOUND_NANOS)]);
            assert_eq!((none, figures.near_staleness), (vec![], BOUND_NANOS));
            assert_eq!(mistakes(&[elsewhere.clone(), near_hit(321 + BOUND_NANOS)]), too_old);
            let hit = call(Kind::Lookup, 321, 330, version(1));
            assert_eq!(mistakes(&[elsewhere, hit]), too_old);
        }
    }

    #[test]
    fn finds_results_that_are_old_after_the_last_write() {
        let last = [call(Kind::Fence, 900, 910, version(3)), call(Kind::FenceInspect, 920, 930, version(3))];
        assert_eq!(mistakes(&last), []);
        let near_hit = Call { source: Some(Source::NearHit), ..call(Kind::Fence, 900, 910, version(1)) };
        let Verdict { mistakes, figures } =
            check(&log(), &[near_hit, call(Kind::FenceInspect, 920, 930, Read::Absent)]);
        let old = |version| Mistake::OldForEver { version, last: 3 };
        assert_eq!(mistakes, [(0, old(1)), (1, old(2))]);
        assert_eq!((figures.at_fence, figures.near_at_fence), (2, 1));
    }

    #[test]
    fn finds_a_result_that_is_too_new() {
        assert_eq!(mistakes(&[call(Kind::Get, 10, 99, version(1))]), [(0, Mistake::TooNew { last: 0 })]);
        assert_eq!(mistakes(&[call(Kind::Get, 110, 199, Read::Absent)]), [(0, Mistake::TooNew { last: 1 })]);
    }

    #[test]
    fn finds_a_record_that_is_torn_or_unreadable() {
        let half = Row { note: Some(0), ..Row::created(0).with(STOCK, 1) };
        for row in [Some(half), None] {
            let read = Read::Record(Seen { row, load: 7, over: None });
            assert_eq!(mistakes(&[call(Kind::Peek, 110, 120, read)]), [(0, Mistake::Torn)]);
        }
        assert_eq!(mistakes(&[call(Kind::Inspect, 10, 20, Read::Unreadable)]), [(0, Mistake::Unreadable)]);
    }

    #[test]
    fn finds_a_lease_over_a_live_entry_once_its_fill_is_served() {
        let read = Read::Record(Seen { row: log()[0].row, load: 7, over: Some(5) });
        let hit = call(Kind::Lookup, 10, 20, read);
        assert_eq!(mistakes(std::slice::from_ref(&hit)), [(0, Mistake::LeaseOverLiveEntry { over: 5 })]);
        // Its fill may have been fenced.
        for source in [Source::Loaded, Source::Coalesced, Source::Bypassed] {
            assert_eq!(mistakes(&[Call { source: Some(source), ..hit.clone() }]), []);
        }
    }
}
