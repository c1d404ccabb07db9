//! The records of a run: the commits of the primary, and every call with its start, end and result.

use std::sync::{Mutex, PoisonError};

use cache_aside::Outcome;
use serde::{Deserialize, Serialize};

use crate::link::Sender;
use crate::row::Row;
use crate::wire::ToParent;

/// A version of a row, the n-th of the log of its key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Commit {
    /// Taken within the commit: nobody saw the version before this time.
    pub(crate) at: u64,
    /// `None` if the row was deleted, or didn't exist yet.
    pub(crate) row: Option<Row>,
}

/// One call on the cache, or one load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) key: u32,
    pub(crate) process: u16,
    pub(crate) task: u16,
    /// The backend of the process that the cache is over; none for a part of a call.
    pub(crate) backend: Option<u8>,
    pub(crate) kind: Kind,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) ended: Ended,
    pub(crate) read: Read,
    pub(crate) source: Option<Source>,
    /// The version that the caller itself had committed before an update in place.
    pub(crate) committed: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Kind {
    Get,
    GetFresh,
    Lookup,
    Peek,
    Inspect,
    Refresh,
    Invalidate,
    InvalidateMany,
    UpdateField,
    UpdateFields,
    Modify,
    Load,
    /// A lookup after the last write.
    Fence,
    /// A look at the stored entry at that time.
    FenceInspect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Ended {
    /// With `Ok`. For an update: it was applied to a live record.
    Done,
    /// With `Ok`, for an update: there was nothing to apply it to.
    NothingThere,
    Failed,
    Dropped,
}

/// The record that a call returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Read {
    /// It doesn't read, or it read the cache alone and found nothing.
    Nothing,
    /// There is no such record.
    Absent,
    Record(Seen),
    /// The entry was neither a record nor a not-found entry.
    Unreadable,
}

/// A record as a reader saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// `None` if no version has this text.
    pub(crate) row: Option<Row>,
    /// The load that made it.
    pub(crate) load: u64,
    /// The load of the live entry that was there when that load began.
    pub(crate) over: Option<u64>,
}

/// Where a lookup's record came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Source {
    Hit,
    NotFoundHit,
    NearHit,
    Loaded,
    Coalesced,
    Waited,
    Bypassed,
    Stale,
}

impl Source {
    pub(crate) fn of(outcome: Outcome) -> Option<Self> {
        Some(match outcome {
            Outcome::Hit => Self::Hit,
            Outcome::NotFoundHit => Self::NotFoundHit,
            Outcome::NearHit => Self::NearHit,
            Outcome::Loaded => Self::Loaded,
            Outcome::Coalesced => Self::Coalesced,
            Outcome::Waited => Self::Waited,
            Outcome::Bypassed => Self::Bypassed,
            Outcome::Stale { .. } => Self::Stale,
            _ => return None,
        })
    }
}

impl Call {
    /// The version that every later call must see, if the row was at version `at_start` when this call started.
    pub(crate) fn guarantees(&self, at_start: u64) -> Option<u64> {
        if !matches!(self.ended, Ended::Done | Ended::NothingThere) {
            return None;
        }
        match self.kind {
            Kind::Invalidate | Kind::InvalidateMany | Kind::Refresh => Some(at_start),
            Kind::UpdateField | Kind::UpdateFields | Kind::Modify => self.committed,
            Kind::Get | Kind::GetFresh | Kind::Lookup | Kind::Peek | Kind::Inspect | Kind::Load => None,
            Kind::Fence | Kind::FenceInspect => None,
        }
    }

    /// Whether the call was made when nobody wrote any more.
    pub(crate) fn is_fence(&self) -> bool {
        matches!(self.kind, Kind::Fence | Kind::FenceInspect)
    }

    pub(crate) fn is_near_hit(&self) -> bool {
        self.source == Some(Source::NearHit)
    }

    /// Whether its record was read from the cache.
    pub(crate) fn read_the_cache(&self) -> bool {
        match self.source {
            Some(Source::Hit | Source::NotFoundHit | Source::NearHit | Source::Waited | Source::Stale) => true,
            Some(Source::Loaded | Source::Coalesced | Source::Bypassed) => false,
            None => matches!(self.kind, Kind::Peek | Kind::Inspect | Kind::FenceInspect | Kind::Modify),
        }
    }
}

/// Collects the calls of one process in one round, and sends them on in portions.
pub(crate) struct Recorder {
    round: u64,
    sender: Sender,
    /// `None` once the round is over: loads that nobody waits for may end later.
    calls: Mutex<Option<Vec<Call>>>,
}

impl Recorder {
    const PORTION: usize = 1000;

    pub(crate) fn new(round: u64, sender: Sender) -> Self {
        Self { round, sender, calls: Mutex::new(Some(Vec::new())) }
    }

    pub(crate) fn record(&self, call: Call) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(calls) = calls.as_mut() else { return };
        calls.push(call);
        if calls.len() >= Self::PORTION {
            self.send(std::mem::take(calls));
        }
    }

    pub(crate) fn close(&self) {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.send(calls.unwrap_or_default());
    }

    fn send(&self, calls: Vec<Call>) {
        self.sender.send(&ToParent::History { round: self.round, calls });
    }
}
