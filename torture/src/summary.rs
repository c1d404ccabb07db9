//! The statistics of a run, and whether enough has happened to prove anything.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::check::Figures;
use crate::faults::Happened;
use crate::history::{Call, Ended, Kind, Source};
use crate::near;
use crate::wire::Counts;

/// A run that is shorter may miss some of the rarer outcomes.
const LONG_ENOUGH: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Summary {
    calls: BTreeMap<Kind, BTreeMap<Ended, u64>>,
    sources: BTreeMap<Source, u64>,
    counts: Counts,
    /// Whether the caches have near caches.
    pub(crate) near: bool,
    pub(crate) figures: Figures,
    pub(crate) commits: u64,
    pub(crate) rounds: u64,
    pub(crate) violations: u64,
    /// The number of violations that were still there when nobody wrote any more.
    pub(crate) old_for_ever: u64,
    /// Results that are too old because a failover has lost a write, and how long after the promotion the last of them
    /// was.
    pub(crate) explained: u64,
    pub(crate) last_explained: u64,
    pub(crate) faults: Option<Happened>,
}

impl Summary {
    pub(crate) fn add_calls(&mut self, calls: &[Call]) {
        for call in calls {
            *self.calls.entry(call.kind).or_default().entry(call.ended).or_default() += 1;
            if let Some(source) = call.source {
                *self.sources.entry(source).or_default() += 1;
            }
        }
    }

    pub(crate) fn add_counts(&mut self, counts: Counts) {
        self.counts.add(counts);
    }

    /// Calls on the cache, without loads.
    pub(crate) fn operations(&self) -> u64 {
        self.calls.iter().filter(|(kind, _)| is_call(**kind)).flat_map(|(_, ended)| ended.values()).sum()
    }

    pub(crate) fn unreadable(&self) -> u64 {
        self.counts.decode_errors
    }

    fn ended(&self, kinds: &[Kind], ended: Ended) -> u64 {
        kinds.iter().filter_map(|kind| self.calls.get(kind)?.get(&ended)).sum()
    }

    fn source(&self, source: Source) -> u64 {
        self.sources.get(&source).copied().unwrap_or_default()
    }

    /// Outcomes that a run of this length should have, but never had.
    pub(crate) fn missing(&self, ran: Duration) -> Vec<String> {
        let updates = self.ended(&[Kind::UpdateField, Kind::UpdateFields, Kind::Modify], Ended::Done);
        let happened = [
            ("a hit", self.source(Source::Hit)),
            ("a miss", self.source(Source::Loaded)),
            ("a not-found hit", self.source(Source::NotFoundHit)),
            ("a coalesced load", self.source(Source::Coalesced)),
            ("a wait for another process' load", self.source(Source::Waited)),
            ("a stale record", self.source(Source::Stale)),
            ("a fenced fill", self.counts.fenced_fills),
            ("an update of a live record", updates),
        ];
        let happened_near = [
            ("a near hit", self.counts.near_hits),
            ("a near invalidation", self.counts.near_invalidations),
            ("a refused insert into a near cache", self.counts.near_refused_inserts),
            ("a near hit at the fence", self.figures.near_at_fence),
        ];
        let happened = happened.into_iter().chain(happened_near.into_iter().filter(|_| self.near));
        let never = happened.filter(|(_, times)| *times == 0).map(|(what, _)| what.to_owned());
        match self.rounds {
            0 => vec!["round that was checked".to_owned()],
            _ if ran < LONG_ENOUGH => Vec::new(),
            _ => never.collect(),
        }
    }

    fn fmt_near(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { near_hits, near_invalidations, near_flushes, near_refused_inserts, .. } = self.counts;
        let Figures { near_staleness, at_fence, near_at_fence, .. } = self.figures;
        let (stale, bound) = (millis(near_staleness), near::BOUND.as_millis());
        writeln!(
            f,
            "near hits            {near_hits}, the oldest {stale:.3} ms after a newer write had returned, of {bound}"
        )?;
        writeln!(
            f,
            "near caches          {near_invalidations} invalidations, {near_flushes} flushes, {near_refused_inserts} refused inserts"
        )?;
        writeln!(
            f,
            "fence                {at_fence} reads, {near_at_fence} of them near hits, {} old for ever",
            self.old_for_ever
        )
    }
}

/// Whether it is a call by itself, and not a part of one.
fn is_call(kind: Kind) -> bool {
    kind != Kind::Load
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<18}{:>10}{:>14}{:>10}{:>10}", "calls", "done", "nothing there", "failed", "dropped")?;
        for kind in self.calls.keys().filter(|kind| is_call(**kind)) {
            let [done, nothing, failed, dropped] = [Ended::Done, Ended::NothingThere, Ended::Failed, Ended::Dropped]
                .map(|ended| self.ended(&[*kind], ended));
            writeln!(f, "  {:<16}{done:>10}{nothing:>14}{failed:>10}{dropped:>10}", format!("{kind:?}"))?;
        }
        write!(f, "lookups by outcome ")?;
        for (source, times) in &self.sources {
            write!(f, "  {source:?} {times}")?;
        }
        let Counts { loads, load_errors, fenced_fills, .. } = self.counts;
        writeln!(f, "\nloads                {loads}, {load_errors} failed, {fenced_fills} fenced")?;
        writeln!(f, "unreadable entries   {}", self.unreadable())?;
        writeln!(f, "commits              {} in {} rounds", self.commits, self.rounds)?;
        writeln!(f, "worst staleness      {:.3} ms", millis(self.figures.worst_staleness))?;
        if self.near {
            self.fmt_near(f)?;
        }
        if let Some(Happened { faults, failovers }) = &self.faults {
            let faults: Vec<_> = faults.iter().map(|(fault, times)| format!("{fault} {times} times")).collect();
            writeln!(f, "faults               {}", faults.join(", "))?;
            let longest = failovers.iter().map(|failover| failover.promoted - failover.killed).max().unwrap_or(0);
            writeln!(f, "failovers            {}, the longest took {:.0} ms", failovers.len(), millis(longest))?;
            writeln!(
                f,
                "lost by failovers    {} reads were too old, the last {:.0} ms after the promotion",
                self.explained,
                millis(self.last_explained)
            )?;
        }
        write!(f, "reads checked        {}\nviolations           {}", self.figures.reads, self.violations)
    }
}

fn millis(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64() * 1e3
}
