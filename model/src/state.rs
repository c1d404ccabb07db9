//! One state of the model: the primary, the entry K, the lease L, calls, flights and writers.
//!
//! Contains no rule of the protocol. Values that only grow in the code (timestamps, tokens) have a form here that
//! repeats, so that there are finitely many states.

use crate::primary::{Change, Floor, Primary, Row};
use crate::takeover::Takeover;

pub(crate) const MAX_READERS: usize = 3;
pub(crate) const MAX_WRITERS: usize = 2;
pub(crate) const MAX_LATE: usize = 6;

/// The entry at K.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Entry {
    /// A record, or a not-found entry.
    Whole(Row),
    /// A record past its TTL.
    Stale(Row),
    /// A mixture of a record and a not-found entry: unreadable, so a miss.
    Mixed,
}

/// The value of L: a lease or a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lease {
    Held(Token),
    /// In the place of a holder that is gone.
    Marked(Mark),
}

/// A mark at L.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Mark {
    /// A load has failed, and the stale entry is served in its place.
    Failed,
    /// A load has stored nothing: it failed, or there was nothing to store.
    Unstored,
}

/// The token of a lease. One that is stored nowhere any more is used again: it can't be told from a new one.
pub(crate) type Token = u8;

/// A timestamp of a flight, as the set of calls that had started when it was taken: it is only ever compared with a
/// call's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Timestamp(u8);

impl Timestamp {
    pub(crate) fn add(&mut self, reader: usize) {
        self.0 |= 1 << reader;
    }

    pub(crate) fn forget(&mut self, reader: usize) {
        self.0 &= !(1 << reader);
    }

    pub(crate) fn is_after(self, reader: usize) -> bool {
        self.0 & (1 << reader) != 0
    }
}

/// A reader: some gets, one after another, and the flight that it leads, which outlives the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Reader {
    pub(crate) gets_left: u8,
    pub(crate) call: Call,
    pub(crate) floor: Floor,
    /// The stale record that the call has found.
    pub(crate) stale: Option<Row>,
    pub(crate) flight: Option<Flight>,
}

/// The progress of a get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    /// Before the first get, between two, or after the last.
    Idle,
    /// It has its timestamp: next it joins the flight of the key, or reads.
    Called,
    /// Its own read is under way.
    Reading,
    /// It found nothing, or was too late for a flight: next it joins a flight or leads one.
    Missed,
    /// Its own read failed: next it joins or leads a load around the cache.
    OutOfReach,
    /// It waits for a flight, as its leader or a follower. The number is the leader's.
    InFlight(usize),
}

/// A flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Flight {
    /// Whether it belongs to the map of loads around the cache.
    pub(crate) bypass: bool,
    /// Whether all calls that it was started or joined by have a stale record to return.
    pub(crate) behind_stale: bool,
    /// Whether it still is in its map.
    pub(crate) open: bool,
    pub(crate) step: Step,
}

/// The progress of a flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// Sends its first `acquire`.
    Starting,
    /// Another process holds the lease: sends another `acquire`, or stops waiting.
    Waiting,
    /// `SET L NX` is under way.
    Acquiring { token: Token, looked: Timestamp },
    /// There was a mark at L, which the script that is under way replaces.
    TakingOver { token: Token, mark: Mark, looked: Timestamp },
    /// The look at K is under way. `stood`: a live entry was there at the grant, and still is.
    Looking { token: Token, looked: Timestamp, granted: bool, stood: bool },
    /// Begins its load. `shown`: the stale record that the loader may confirm.
    Granted { token: Token, stood: bool, shown: Option<Row> },
    /// Begins a load around the cache.
    Bypassing,
    /// Its loader reads the primary; `None` around the cache.
    Loading { lease: Option<Token>, began: Timestamp, shown: Option<Row> },
    /// Sends its fill.
    Loaded { token: Token, began: Timestamp, row: Row },
    /// Its fill is under way, which stores the row or nothing.
    Filling { token: Token, began: Timestamp, sent: Timestamp, row: Row, stores: bool },
    /// The loader has answered `unchanged`: sends its touch.
    Confirmed { token: Token, began: Timestamp, row: Row },
    /// Its touch is under way.
    Touching { token: Token, began: Timestamp, sent: Timestamp, row: Row },
    /// The load has failed: another look at K is under way.
    LookingAgain { lease: Option<Token>, looked: Timestamp },
    /// Gives its lease back.
    Abandoning { token: Token, result: FlightResult },
    /// Replaces its lease by a mark.
    Marking { token: Token, mark: Mark, result: FlightResult },
    /// Leaves the map and hands its result to the leader and all followers.
    Ending(FlightResult),
    /// Leaves the map without a result, if its callers need none.
    GivingUp,
}

/// The result of a flight: a row with the timestamp of the step that justifies it, or an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FlightResult {
    pub(crate) row: Option<Row>,
    pub(crate) justified: Timestamp,
}

impl Step {
    pub(crate) fn token(&self) -> Option<Token> {
        match *self {
            Self::Loading { lease, .. } | Self::LookingAgain { lease, .. } => lease,
            Self::Acquiring { token, .. }
            | Self::TakingOver { token, .. }
            | Self::Looking { token, .. }
            | Self::Granted { token, .. }
            | Self::Loaded { token, .. }
            | Self::Filling { token, .. }
            | Self::Confirmed { token, .. }
            | Self::Touching { token, .. }
            | Self::Abandoning { token, .. }
            | Self::Marking { token, .. } => Some(token),
            Self::Starting | Self::Waiting | Self::Bypassing | Self::Ending(_) | Self::GivingUp => None,
        }
    }

    /// Removes a call that has ended from all timestamps.
    pub(crate) fn forget(&mut self, reader: usize) {
        match self {
            Self::Acquiring { looked: timestamp, .. }
            | Self::TakingOver { looked: timestamp, .. }
            | Self::Looking { looked: timestamp, .. }
            | Self::Loading { began: timestamp, .. }
            | Self::Loaded { began: timestamp, .. }
            | Self::Confirmed { began: timestamp, .. }
            | Self::LookingAgain { looked: timestamp, .. }
            | Self::Ending(FlightResult { justified: timestamp, .. })
            | Self::Abandoning { result: FlightResult { justified: timestamp, .. }, .. }
            | Self::Marking { result: FlightResult { justified: timestamp, .. }, .. } => timestamp.forget(reader),
            Self::Filling { began, sent, .. } | Self::Touching { began, sent, .. } => {
                began.forget(reader);
                sent.forget(reader);
            }
            Self::Starting | Self::Waiting | Self::Granted { .. } | Self::Bypassing | Self::GivingUp => {}
        }
    }
}

/// A writer: some writes, one after another, each a commit and then a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Writer {
    pub(crate) written: u8,
    pub(crate) stage: Stage,
}

/// The progress of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    /// The commit is next.
    Ready,
    /// Committed, and calls `invalidate`, perhaps in place of an update that has failed: its first command is next.
    Invalidating,
    /// The first command of its `invalidate` was carried out, when the primary's row was as new as `promised`; the
    /// second is next.
    Halfway { promised: Floor },
    /// A refresh, which commits nothing.
    Refreshing(Refresh),
    /// Committed: the update's look at K is next.
    Updating { change: Change, commit: u8 },
    /// The update has decided: its transaction is next.
    Deciding(Transaction),
    /// Applied: the return is next. Gets that start after it may not return older data than `promised`.
    Applied { promised: Floor },
    /// Cancelled or crashed: promises nothing.
    Stopped,
}

/// The progress of a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Refresh {
    /// `SET L NX` is under way.
    Acquiring { token: Token },
    /// Another holds the lease, or its mark lies at L.
    Waiting,
    /// Its loader reads the primary; `None` around the cache.
    Loading { lease: Option<Token> },
    /// Its fill is under way.
    Filling { token: Token, row: Row },
    /// Its load has failed: gives its lease back.
    Abandoning { token: Token },
}

impl Refresh {
    pub(crate) fn token(self) -> Option<Token> {
        match self {
            Self::Acquiring { token } | Self::Filling { token, .. } | Self::Abandoning { token } => Some(token),
            Self::Loading { lease } => lease,
            Self::Waiting => None,
        }
    }
}

/// A command of an `invalidate`, which sends both in one pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delete {
    /// `DEL L`.
    Lease,
    /// `DEL K`.
    Entry,
}

/// An update's MULTI .. EXEC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Transaction {
    pub(crate) change: Change,
    pub(crate) commit: u8,
    pub(crate) shown: Option<Entry>,
    /// K has changed since the `WATCH`.
    pub(crate) refused: bool,
}

/// A command whose sender has given up on it: it is carried out at any later time, or never. `Invalidate` stands for
/// both commands of an `invalidate`, of which the second may come later still, or never; `SecondDelete` for the second
/// alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Late {
    Acquire { token: Token },
    TakeOver { token: Token, mark: Mark },
    Fill { token: Token, row: Option<Row> },
    Touch { token: Token, row: Row },
    Abandon { token: Token },
    Mark { token: Token, mark: Mark },
    Invalidate,
    SecondDelete,
    Update(Transaction),
}

impl Late {
    pub(crate) fn token(&self) -> Option<Token> {
        match *self {
            Self::Acquire { token }
            | Self::TakeOver { token, .. }
            | Self::Fill { token, .. }
            | Self::Touch { token, .. }
            | Self::Abandon { token }
            | Self::Mark { token, .. } => Some(token),
            Self::Invalidate | Self::SecondDelete | Self::Update(_) => None,
        }
    }
}

/// A promise that a step has broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Breach {
    /// A get returned data that is too old.
    TooOld,
    /// A get returned a record that the primary never had.
    Torn,
    /// A load began under a lease although the entry that was there at the grant still is.
    NeedlessLoad,
    /// A grant has taken the lease of another load away.
    LeaseTaken,
    /// An unchanged answer has renewed a record that its loader didn't read.
    WrongRecordRenewed,
    /// A call was too late for the flight that it leads.
    OwnFlightTooLate,
    /// A flight ended without a result for a call that has no stale record.
    NoResult,
}

/// One state of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) primary: Primary,
    pub(crate) entry: Option<Entry>,
    pub(crate) lease: Option<Lease>,
    pub(crate) readers: [Reader; MAX_READERS],
    pub(crate) writers: [Writer; MAX_WRITERS],
    pub(crate) late: [Option<Late>; MAX_LATE],
    /// The promise of all writes that have returned, to a get that starts now.
    pub(crate) floor: Floor,
    pub(crate) crashes_left: u8,
    pub(crate) losses_left: u8,
    pub(crate) takeover: Takeover,
    pub(crate) breach: Option<Breach>,
}

impl State {
    pub(crate) fn flights(&self) -> impl Iterator<Item = &Flight> {
        self.readers.iter().filter_map(|reader| reader.flight.as_ref())
    }

    pub(crate) fn flights_mut(&mut self) -> impl Iterator<Item = &mut Flight> {
        self.readers.iter_mut().filter_map(|reader| reader.flight.as_mut())
    }

    pub(crate) fn callers_of(&self, flight: usize) -> impl Iterator<Item = usize> {
        let readers = self.readers;
        (0..MAX_READERS).filter(move |&reader| readers[reader].call == Call::InFlight(flight))
    }

    /// A command that its sender has given up on.
    pub(crate) fn leave_behind(&mut self, late: Late) {
        let free = self.late.iter_mut().find(|slot| slot.is_none());
        *free.expect("there is room for what the losses and the ends of a scope leave behind") = Some(late);
        self.late.sort_unstable();
    }

    /// Leaves behind the command that a writer has sent.
    pub(crate) fn leave_write_behind(&mut self, stage: Stage) {
        match stage {
            Stage::Deciding(transaction) => self.leave_behind(Late::Update(transaction)),
            Stage::Invalidating => self.leave_behind(Late::Invalidate),
            Stage::Halfway { .. } => self.leave_behind(Late::SecondDelete),
            Stage::Refreshing(Refresh::Acquiring { token }) => self.leave_behind(Late::Acquire { token }),
            Stage::Refreshing(Refresh::Filling { token, row }) => {
                self.leave_behind(Late::Fill { token, row: Some(row) });
            }
            Stage::Refreshing(Refresh::Abandoning { token }) => self.leave_behind(Late::Abandon { token }),
            Stage::Refreshing(Refresh::Waiting | Refresh::Loading { .. }) => {}
            Stage::Ready | Stage::Updating { .. } | Stage::Applied { .. } | Stage::Stopped => {}
        }
    }

    /// Leaves behind the command that a flight has sent.
    pub(crate) fn leave_flight_behind(&mut self, step: Step) {
        match step {
            Step::Acquiring { token, .. } => self.leave_behind(Late::Acquire { token }),
            Step::TakingOver { token, mark, .. } => self.leave_behind(Late::TakeOver { token, mark }),
            Step::Filling { token, row, stores, .. } => {
                self.leave_behind(Late::Fill { token, row: stores.then_some(row) });
            }
            Step::Touching { token, row, .. } => self.leave_behind(Late::Touch { token, row }),
            Step::Abandoning { token, .. } => self.leave_behind(Late::Abandon { token }),
            Step::Marking { token, mark, .. } => self.leave_behind(Late::Mark { token, mark }),
            _ => {}
        }
    }

    /// Forgets the promises of writes once no get can start any more: they don't matter then, and there are fewer
    /// states.
    pub(crate) fn forget_promises(&mut self) {
        if self.readers.iter().any(|reader| reader.gets_left > 0) {
            return;
        }
        self.floor = Floor::default();
        for writer in &mut self.writers {
            if let Stage::Halfway { promised } | Stage::Applied { promised } = &mut writer.stage {
                *promised = Floor::default();
            }
        }
    }

    /// Ends a call, with or without a result.
    pub(crate) fn end_call(&mut self, reader: usize) {
        self.readers[reader].call = Call::Idle;
        self.readers[reader].floor = Floor::default();
        self.readers[reader].stale = None;
        self.flights_mut().for_each(|flight| flight.step.forget(reader));
    }
}
