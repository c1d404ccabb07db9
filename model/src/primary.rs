//! The primary: its rows, commits, and what a get may be promised about them.

const MAX_ROWS: usize = 4;

/// A record of two fields, or the fact that there is none. A field's value is the number of the commit that wrote it; a
/// deleted row has the number of the deleting commit in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) present: bool,
    pub(crate) a: u8,
    pub(crate) b: u8,
}

impl Row {
    /// Whether each field is at least as new as in `floor`.
    pub(crate) fn reaches(self, floor: Floor) -> bool {
        self.a >= floor.a && self.b >= floor.b
    }

    /// Whether a loader takes the two for one and the same. A commit writes one of two values, in turns: the second
    /// brings back the value from before the first, although the row is newer.
    pub(crate) fn looks_like(self, other: Self) -> bool {
        let value = |commit: u8| commit % 2;
        let [own, other] = [self, other].map(|row| (row.present, value(row.a), value(row.b)));
        own == other
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

    pub(crate) fn lower(&mut self, to: Self) {
        *self = Self { a: self.a.min(to.a), b: self.b.min(to.b) };
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
        // The slots of later commits too: their contents must not make equal states differ.
        self.rows[usize::from(self.commits)..].fill(row);
        self.commits
    }

    pub(crate) fn ever_had(&self, row: Row) -> bool {
        self.rows.contains(&row)
    }
}

/// A writer's change of the row.
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

    /// The values that it writes, which its call promises.
    pub(crate) fn floor(self, commit: u8) -> Floor {
        self.of(Row { present: true, a: 0, b: 0 }, commit).into()
    }
}
