//! A violation told for people: what was wrong, and what happened to the key around it, in the order of time.

use std::fmt::Write as _;

use crate::check::{Floor, Mistake};
use crate::history::{Call, Commit, Ended, Kind, Read};

/// What is shown before and after: long enough for the load or the entry that it began with.
const BEFORE: u64 = 40_000_000;
const AFTER: u64 = 5_000_000;
const MOST_LINES: usize = 120;

/// Tells of the mistake of `calls[wrong]`.
pub(crate) fn tell(id: &str, log: &[Commit], calls: &[Call], wrong: usize, mistake: Mistake) -> String {
    let call = &calls[wrong];
    let zero = call.start;
    let mut story = format!("VIOLATION, key {id}: {} {}\n", caller(call), sentence(call, calls, mistake));
    let guarantee = match mistake {
        Mistake::TooOld { floor: Floor { by: Some(by), .. }, .. } => calls[by].start,
        _ => zero,
    };
    let (from, to) = (guarantee.min(zero).saturating_sub(BEFORE), call.end + AFTER);
    let commits = log.iter().enumerate().filter(|(_, commit)| (from..=to).contains(&commit.at));
    let mut lines: Vec<(u64, bool, String)> = commits
        .map(|(version, commit)| {
            (commit.at, false, format!("{:>24}  {}", millis(commit.at, zero), committed(version, commit)))
        })
        .collect();
    lines.extend(calls.iter().enumerate().filter(|(_, call)| call.start <= to && call.end >= from).map(
        |(index, call)| {
            let times = format!("{} to {}", millis(call.start, zero), millis(call.end, zero));
            (call.start, index == wrong, format!("{times:>24}  {} {}", caller(call), result(call)))
        },
    ));
    lines.sort_by_key(|(at, ..)| *at);
    let at = lines.iter().position(|(_, is_wrong, _)| *is_wrong).unwrap_or(0);
    let first = (at + MOST_LINES / 6).min(lines.len()).saturating_sub(MOST_LINES);
    let _ = writeln!(story, "  what happened to it, in ms from the start of that call:");
    if first > 0 {
        let _ = writeln!(story, "      ({first} lines before are left out)");
    }
    for (_, is_wrong, line) in lines.iter().skip(first).take(MOST_LINES) {
        let _ = writeln!(story, "  {} {line}", if *is_wrong { "->" } else { "  " });
    }
    story
}

fn sentence(call: &Call, calls: &[Call], mistake: Mistake) -> String {
    match mistake {
        Mistake::TooOld { version, floor } => {
            let by = floor.by.map_or_else(String::new, |by| {
                let guarantee = &calls[by];
                let before = call.start.saturating_sub(guarantee.end);
                format!(", guaranteed by {}, which had returned {} ms before it", caller(guarantee), millis(before, 0))
            });
            format!("returned version {version}, too old: version {} was due{by}", floor.version)
        }
        Mistake::TooNew { last } => format!("returned {}, too new: version {last} was the last", result(call)),
        Mistake::Torn => format!("returned {}, which is not the row at any one version", result(call)),
        Mistake::Unreadable => "found an entry that is neither a record nor a not-found entry".to_owned(),
        Mistake::LeaseOverLiveEntry { over: 0 } => {
            "was served a record whose lease was granted over a live not-found entry".to_owned()
        }
        Mistake::LeaseOverLiveEntry { over } => {
            format!("was served a record whose lease was granted over a live entry, that of load {over}")
        }
    }
}

fn caller(call: &Call) -> String {
    let Call { process, task, kind, .. } = call;
    let name = match kind {
        Kind::Get => "get",
        Kind::Lookup => "lookup",
        Kind::Peek => "peek",
        Kind::Inspect => "inspect",
        Kind::Refresh => "refresh",
        Kind::Invalidate => "invalidate",
        Kind::InvalidateMany => "invalidate_many",
        Kind::UpdateField => "update_field",
        Kind::UpdateFields => "update_fields",
        Kind::Modify => "modify",
        Kind::Load => "load",
    };
    format!("{name} (process {process}, task {task})")
}

fn result(call: &Call) -> String {
    let mut text = match call.ended {
        Ended::Failed => return "failed".to_owned(),
        Ended::Dropped => return "was dropped".to_owned(),
        Ended::NothingThere => "nothing to update".to_owned(),
        Ended::Done => match call.read {
            Read::Nothing => "done".to_owned(),
            Read::Absent => "no such record".to_owned(),
            Read::Unreadable => "unreadable".to_owned(),
            Read::Record(seen) => {
                let row = seen
                    .row
                    .map_or_else(|| "a torn name".to_owned(), |row| format!("version {} {row:?}", row.version()));
                let over = seen.over.map_or_else(String::new, |over| format!(" over the entry of load {over}"));
                format!("{row}, of load {}{over}", seen.load)
            }
        },
    };
    if let Some(source) = call.source {
        let _ = write!(text, ", {source:?}");
    }
    if let Some(version) = call.committed {
        let _ = write!(text, ", after its commit of version {version}");
    }
    text
}

fn committed(version: usize, commit: &Commit) -> String {
    let row = commit.row.map_or_else(|| "no row".to_owned(), |row| format!("{row:?}"));
    format!("commit of version {version}: {row}")
}

#[allow(clippy::cast_precision_loss, reason = "to be read by people")]
fn millis(at: u64, zero: u64) -> String {
    let (sign, distance) = if at < zero { ("-", zero - at) } else { ("", at - zero) };
    format!("{sign}{:.3}", distance as f64 / 1e6)
}
