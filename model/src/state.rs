//! What a moment of the protocol consists of: the primary, the entry K, the lease L, calls, flights and writers.
//!
//! Holds no rule of the protocol. What the code keeps as numbers that only grow (stamps, tokens) is kept here in a form
//! that repeats, so that the states are finitely many.

pub(crate) const MAX_READERS: usize = 3;
pub(crate) const MAX_WRITERS: usize = 2;
pub(crate) const MAX_LATE: usize = 6;
const MAX_ROWS: usize = 4;

/// A record of two fields, or the news that there is none. A field's value is the number of the commit that wrote it; a
/// row that was deleted has the number of that commit in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) present: bool,
    pub(crate) a: u8,
    pub(crate) b: u8,
}

impl Row {
    /// Whether this is as new as `floor` in each field.
    pub(crate) fn reaches(self, floor: Floor) -> bool {
        self.a >= floor.a && self.b >= floor.b
    }
}

/// The oldest values that a get may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Floor {
    pub(crate) a: u8,
    pub(crate) b: u8,
}

impl Floor {
    pub(crate) fn raise(&mut self, to: Self) {
        *self = Self { a: self.a.max(to.a), b: self.b.max(to.b) };
    }
}

impl From<Row> for Floor {
    fn from(row: Row) -> Self {
        Self { a: row.a, b: row.b }
    }
}

/// The database: its row after each commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Primary {
    rows: [Row; MAX_ROWS],
    commits: u8,
}

impl Primary {
    pub(crate) fn new(present: bool) -> Self {
        Self { rows: [Row { present, a: 0, b: 0 }; MAX_ROWS], commits: 0 }
    }

    pub(crate) fn row(&self) -> Row {
        self.rows[usize::from(self.commits)]
    }

    pub(crate) fn commit(&mut self, change: Change) -> u8 {
        let row = self.row();
        self.commits += 1;
        let row = change.of(row, self.commits);
        // Also where later commits will be: nothing there may tell states apart.
        self.rows[usize::from(self.commits)..].fill(row);
        self.commits
    }

    pub(crate) fn ever_had(&self, row: Row) -> bool {
        self.rows.contains(&row)
    }
}

/// What a writer does to the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Change {
    A,
    B,
    Create,
    Delete,
}

impl Change {
    pub(crate) fn of(self, row: Row, commit: u8) -> Row {
        match self {
            Self::A => Row { a: commit, ..row },
            Self::B => Row { b: commit, ..row },
            Self::Create => Row { present: true, a: commit, b: commit },
            Self::Delete => Row { present: false, a: commit, b: commit },
        }
    }

    /// The values that it writes.
    pub(crate) fn floor(self, commit: u8) -> Floor {
        self.of(Row { present: true, a: 0, b: 0 }, commit).into()
    }
}

/// What lies at K.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Entry {
    /// A record, or a not-found entry.
    Whole(Row),
    /// Something that is neither: a reader takes it for a miss.
    Mixed,
}

/// The name of a lease. One that nothing remembers any more may be given again: nothing can tell it from a new one.
pub(crate) type Token = u8;

/// A stamp, as the set of the calls that had started when it was taken: that is all that a stamp is ever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Stamp(u8);

impl Stamp {
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

/// A reader: some gets, one after another. The flight is the one that this reader started; it outlives the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Reader {
    pub(crate) gets_left: u8,
    pub(crate) call: Call,
    pub(crate) floor: Floor,
    pub(crate) flight: Option<Flight>,
}

/// How far a get is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    /// Between two gets, before the first or after the last.
    Idle,
    /// It was stamped: next it joins the flight of the key, or reads.
    Called,
    /// Its own read is under way.
    Reading,
    /// It found nothing, or was too late for a flight: next it joins or starts one.
    Missed,
    /// Its own read failed: next it joins or starts a load around the cache.
    OutOfReach,
    /// In a flight: the one that the reader of this number started.
    Aboard(usize),
}

/// A flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Flight {
    /// Which map it is in: that of loads around the cache?
    pub(crate) bypass: bool,
    /// Whether it still is in that map.
    pub(crate) open: bool,
    pub(crate) step: Step,
}

/// What a flight does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// Sends its first `acquire`.
    Departing,
    /// Sends another `acquire`, or has waited too long.
    Waiting,
    /// `SET L NX` is under way.
    Acquiring { token: Token, looked: Stamp },
    /// The same pipeline's look at K is. `stood`: an entry was there at the grant, and still is.
    Looking { token: Token, looked: Stamp, granted: bool, stood: bool },
    /// Begins its load.
    Granted { token: Token, stood: bool },
    /// Begins a load around the cache.
    Rerouted,
    /// Its loader reads the primary; `None` around the cache.
    Loading { lease: Option<Token>, began: Stamp },
    /// Sends its fill.
    Loaded { token: Token, began: Stamp, row: Row },
    /// Its fill is under way.
    Filling { token: Token, began: Stamp, sent: Stamp, row: Row },
    /// Gives its lease back.
    Abandoning { token: Token, landing: Landing },
    /// Leaves the map and tells everyone aboard.
    Landing(Landing),
}

/// What a flight brings: a row with the stamp of the step that justifies it, or an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Landing {
    pub(crate) result: Option<Row>,
    pub(crate) justified: Stamp,
}

impl Step {
    pub(crate) fn token(&self) -> Option<Token> {
        match *self {
            Self::Loading { lease, .. } => lease,
            Self::Acquiring { token, .. }
            | Self::Looking { token, .. }
            | Self::Granted { token, .. }
            | Self::Loaded { token, .. }
            | Self::Filling { token, .. }
            | Self::Abandoning { token, .. } => Some(token),
            Self::Departing | Self::Waiting | Self::Rerouted | Self::Landing(_) => None,
        }
    }

    /// The end of a call: no stamp needs to remember it.
    pub(crate) fn forget(&mut self, reader: usize) {
        match self {
            Self::Acquiring { looked: stamp, .. }
            | Self::Looking { looked: stamp, .. }
            | Self::Loading { began: stamp, .. }
            | Self::Loaded { began: stamp, .. }
            | Self::Landing(Landing { justified: stamp, .. })
            | Self::Abandoning { landing: Landing { justified: stamp, .. }, .. } => stamp.forget(reader),
            Self::Filling { began, sent, .. } => {
                began.forget(reader);
                sent.forget(reader);
            }
            Self::Departing | Self::Waiting | Self::Granted { .. } | Self::Rerouted => {}
        }
    }
}

/// A writer: some writes, one after another, each a commit and then a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Writer {
    pub(crate) written: u8,
    pub(crate) stage: Stage,
}

/// How far a write is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    /// Commits next.
    Ready,
    /// Committed; calls `invalidate`, instead of an update too if that had failed: its first command is next.
    Invalidating,
    /// The first command of its `invalidate` was carried out, while the primary had what is `promised`; the second is next.
    Halfway { promised: Floor },
    /// Committed; its update looks at K next.
    Updating { change: Change, commit: u8 },
    /// The update has decided and sends its transaction.
    Deciding(Transaction),
    /// Carried out; returns next. From then on nobody may see older data than `promised`.
    Carried { promised: Floor },
    /// Given up or died: makes no promise.
    Stopped,
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
    /// WATCH has seen K change.
    pub(crate) refused: bool,
}

/// A command whose sender has given up on it: it is carried out at any time, or never. `Invalidate` is both commands of an
/// `invalidate`, of which the second may come later still, or never; `SecondDelete` is what is left of one then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Late {
    Acquire { token: Token },
    Fill { token: Token, row: Row },
    Abandon { token: Token },
    Invalidate,
    SecondDelete,
    Update(Transaction),
}

impl Late {
    pub(crate) fn token(&self) -> Option<Token> {
        match *self {
            Self::Acquire { token } | Self::Fill { token, .. } | Self::Abandon { token } => Some(token),
            Self::Invalidate | Self::SecondDelete | Self::Update(_) => None,
        }
    }
}

/// What a step did that no step may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Breach {
    /// A get returned older data than it may.
    Stale,
    /// A get returned what the primary never had.
    Torn,
    /// A load began under a lease beside an entry that was there at the grant.
    NeedlessLoad,
    /// A call was too late for the flight that it had started.
    Lost,
}

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) primary: Primary,
    pub(crate) entry: Option<Entry>,
    pub(crate) lease: Option<Token>,
    pub(crate) readers: [Reader; MAX_READERS],
    pub(crate) writers: [Writer; MAX_WRITERS],
    pub(crate) late: [Option<Late>; MAX_LATE],
    /// What every write that has returned promises to a get that starts now.
    pub(crate) floor: Floor,
    pub(crate) crashes_left: u8,
    pub(crate) losses_left: u8,
    pub(crate) breach: Option<Breach>,
}

impl State {
    pub(crate) fn flights(&self) -> impl Iterator<Item = &Flight> {
        self.readers.iter().filter_map(|reader| reader.flight.as_ref())
    }

    pub(crate) fn flights_mut(&mut self) -> impl Iterator<Item = &mut Flight> {
        self.readers.iter_mut().filter_map(|reader| reader.flight.as_mut())
    }

    pub(crate) fn aboard(&self, flight: usize) -> impl Iterator<Item = usize> {
        let readers = self.readers;
        (0..MAX_READERS).filter(move |&reader| readers[reader].call == Call::Aboard(flight))
    }

    /// A command that its sender has given up on.
    pub(crate) fn leave_behind(&mut self, late: Late) {
        let free = self.late.iter_mut().find(|slot| slot.is_none());
        *free.expect("there is room for what the losses and the ends of a scope leave behind") = Some(late);
        self.late.sort_unstable();
    }

    /// Leaves behind what a writer has sent.
    pub(crate) fn leave_write_behind(&mut self, stage: Stage) {
        match stage {
            Stage::Deciding(transaction) => self.leave_behind(Late::Update(transaction)),
            Stage::Invalidating => self.leave_behind(Late::Invalidate),
            Stage::Halfway { .. } => self.leave_behind(Late::SecondDelete),
            Stage::Ready | Stage::Updating { .. } | Stage::Carried { .. } | Stage::Stopped => {}
        }
    }

    /// Leaves behind what a flight has sent.
    pub(crate) fn leave_flight_behind(&mut self, step: Step) {
        match step {
            Step::Acquiring { token, .. } => self.leave_behind(Late::Acquire { token }),
            Step::Filling { token, row, .. } => self.leave_behind(Late::Fill { token, row }),
            Step::Abandoning { token, .. } => self.leave_behind(Late::Abandon { token }),
            _ => {}
        }
    }

    /// Forgets what writes promise once no get can start any more: nobody asks for it then, and there are fewer states.
    pub(crate) fn forget_promises(&mut self) {
        if self.readers.iter().any(|reader| reader.gets_left > 0) {
            return;
        }
        self.floor = Floor::default();
        for writer in &mut self.writers {
            if let Stage::Halfway { promised } | Stage::Carried { promised } = &mut writer.stage {
                *promised = Floor::default();
            }
        }
    }

    /// The end of a call, with a result or without.
    pub(crate) fn end_call(&mut self, reader: usize) {
        self.readers[reader].call = Call::Idle;
        self.readers[reader].floor = Floor::default();
        self.flights_mut().for_each(|flight| flight.step.forget(reader));
    }
}
