//! A violation explained: the mistake, and the events of the key around it, ordered by time.

use std::fmt::Write as _;

use crate::check::Mistake;
use crate::history::{Call, Commit, Ended, Kind, Read};

/// The time that is shown around the relevant calls.
const AROUND: u64 = 5_000_000;
const MOST_LINES: usize = 100;

struct Line {
    at: u64,
    /// The call made the mistake, made the record, or made the promise that was broken.
    matters: bool,
    text: String,
}

/// Explains the mistake of `calls[wrong]`.
pub(crate) fn tell(id: &str, log: &[Commit], calls: &[Call], wrong: usize, mistake: Mistake) -> String {
    let call = &calls[wrong];
    let zero = call.start;
    let matters = |index: usize| index == wrong || promised(mistake) == Some(index) || has_loaded(&calls[index], call);
    let began = (0..calls.len()).filter(|index| matters(*index)).map(|index| calls[index].start).min().unwrap_or(zero);
    let shown = began.saturating_sub(AROUND)..=call.end + AROUND;
    let mut lines = Vec::new();
    for (version, commit) in log.iter().enumerate().filter(|(_, commit)| shown.contains(&commit.at)) {
        let text = format!("{:>24}  {}", millis(commit.at, zero), committed(version, commit));
        lines.push(Line { at: commit.at, matters: false, text });
    }
    for (index, other) in calls.iter().enumerate() {
        if other.start <= *shown.end() && other.end >= *shown.start() {
            let times = format!("{} to {}", millis(other.start, zero), millis(other.end, zero));
            let text = format!("{times:>24}  {} {}", caller(other), result(other));
            lines.push(Line { at: other.start, matters: matters(index), text });
        }
    }
    lines.sort_by_key(|line| line.at);
    // If there is too much to show, the last events before the mistake are the most useful.
    let end = lines.partition_point(|line| line.at <= zero) + MOST_LINES / 5;
    let first = end.min(lines.len()).saturating_sub(MOST_LINES);

    let mut story = format!("VIOLATION, key {id}: {} {}\n", caller(call), sentence(call, calls, mistake));
    let _ = writeln!(story, "  events of this key, in ms from the start of that call:");
    let mut left_out = 0;
    for (index, line) in lines.iter().enumerate() {
        if line.matters || (first..end).contains(&index) {
            if left_out > 0 {
                let _ = writeln!(story, "     {:>24}  {left_out} more", "..");
                left_out = 0;
            }
            let _ = writeln!(story, "  {} {}", if line.matters { "->" } else { "  " }, line.text);
        } else {
            left_out += 1;
        }
    }
    story
}

/// The call that guaranteed the version which was not seen.
fn promised(mistake: Mistake) -> Option<usize> {
    match mistake {
        Mistake::TooOld { floor, .. } => floor.by,
        _ => None,
    }
}

/// Whether this is the load that made the record which the call has read, or the load whose entry was still there then.
fn has_loaded(load: &Call, call: &Call) -> bool {
    match (load.kind, load.read, call.read) {
        (Kind::Load, Read::Record(made), Read::Record(read)) => made.load == read.load || Some(made.load) == read.over,
        _ => false,
    }
}

fn sentence(call: &Call, calls: &[Call], mistake: Mistake) -> String {
    match mistake {
        Mistake::TooOld { version, floor } => {
            let by = floor.by.map_or_else(String::new, |by| {
                let guarantee = &calls[by];
                let before = call.start.saturating_sub(guarantee.end);
                format!(" by {}, which had returned {} ms before it", caller(guarantee), millis(before, 0))
            });
            format!("returned version {version}, too old: version {} was guaranteed{by}", floor.version)
        }
        Mistake::OldForEver { version, last } => {
            format!("returned version {version} when nobody wrote any more: version {last} is the last")
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
    let Call { process, task, kind, backend, .. } = call;
    let name = match kind {
        Kind::Get => "get",
        Kind::GetFresh => "get_fresh",
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
        Kind::Fence => "lookup at the fence",
        Kind::FenceInspect => "inspect at the fence",
    };
    let over = backend.map_or_else(String::new, |backend| format!(", backend {backend}"));
    format!("{name} (process {process}{over}, task {task})")
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
                    .map_or_else(|| "a torn name".to_owned(), |row| format!("version {} ({row})", row.version()));
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
    let row = commit.row.map_or_else(|| "no row".to_owned(), |row| row.to_string());
    format!("commit of version {version}: {row}")
}

#[allow(clippy::cast_precision_loss, reason = "for display")]
fn millis(at: u64, zero: u64) -> String {
    let (sign, distance) = if at < zero { ("-", zero - at) } else { ("", at - zero) };
    format!("{sign}{:.3}", distance as f64 / 1e6)
}
