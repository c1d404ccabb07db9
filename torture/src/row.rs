//! A row of the primary: which version set which of its fields, so that the whole row at each version is known.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The fields of a row, each as the version that last set it. The note can be removed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) price: u64,
    pub(crate) stock: u64,
    pub(crate) weight: u64,
    pub(crate) name: u64,
    pub(crate) note: Option<u64>,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { price, stock, weight, name, note } = self;
        write!(f, "price {price} stock {stock} weight {weight} name {name} note ")?;
        match note {
            Some(note) => write!(f, "{note}"),
            None => f.write_str("none"),
        }
    }
}

impl Row {
    pub(crate) fn created(version: u64) -> Self {
        Self { price: version, stock: version, weight: version, name: version, note: Some(version) }
    }

    /// The version of the row: each commit sets at least one field that can't be removed.
    pub(crate) fn version(&self) -> u64 {
        self.price.max(self.stock).max(self.weight).max(self.name)
    }

    pub(crate) fn with(mut self, set: Fields, version: u64) -> Self {
        for (field, is_set) in [
            (&mut self.price, set.price),
            (&mut self.stock, set.stock),
            (&mut self.weight, set.weight),
            (&mut self.name, set.name),
        ] {
            if is_set {
                *field = version;
            }
        }
        match set.note {
            NoteChange::Kept => {}
            NoteChange::Set => self.note = Some(version),
            NoteChange::Removed => self.note = None,
        }
        self
    }
}

/// The fields that a commit sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fields {
    pub(crate) price: bool,
    pub(crate) stock: bool,
    pub(crate) weight: bool,
    pub(crate) name: bool,
    pub(crate) note: NoteChange,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NoteChange {
    Kept,
    Set,
    Removed,
}

/// A writer's change of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    /// Sets fields; creates the row, with all fields, if it doesn't exist.
    Put(Fields),
    Delete,
}
