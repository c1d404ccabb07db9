//! The cached record, and the conversions between a row and it.

use cache_aside::{Cacheable, Change, EntryState, Inspection};

use crate::history::{Read, Seen};
use crate::row::{Fields, NoteChange, Row};

/// A cached row. Each field holds the version that set it last; the name is a text that is made from its version.
#[derive(Debug, Clone, PartialEq, Cacheable)]
#[cacheable(namespace = "torture", entity = "row")]
pub(crate) struct Record {
    #[cacheable(id)]
    id: String,
    pub(crate) price: u64,
    stock: u64,
    weight: u64,
    pub(crate) name: String,
    note: Option<u64>,
    /// The load that made this record.
    load: u64,
    /// The load that made the live entry which was there when this load began; 0 for a not-found entry.
    over: Option<u64>,
}

impl Record {
    pub(crate) fn of(row: Row, id: String, load: u64, over: Option<u64>) -> Self {
        let Row { price, stock, weight, name, note } = row;
        Self { id, price, stock, weight, name: name_of(name), note, load, over }
    }

    pub(crate) fn seen(&self) -> Seen {
        let Self { price, stock, weight, note, load, over, .. } = *self;
        let row = version_of(&self.name).map(|name| Row { price, stock, weight, name, note });
        Seen { row, load, over }
    }

    /// Applies the change of a commit.
    pub(crate) fn set(&mut self, set: Fields, row: &Row) {
        if set.price {
            self.price = row.price;
        }
        if set.stock {
            self.stock = row.stock;
        }
        if set.weight {
            self.weight = row.weight;
        }
        if set.name {
            self.name = name_of(row.name);
        }
        if set.note != NoteChange::Kept {
            self.note = row.note;
        }
    }
}

/// The same as changes of an entry.
pub(crate) fn changes(set: Fields, row: &Row) -> Vec<Change<Record>> {
    let fields = Record::FIELDS;
    let changes = [
        set.price.then(|| fields.price.set(row.price)),
        set.stock.then(|| fields.stock.set(row.stock)),
        set.weight.then(|| fields.weight.set(row.weight)),
        set.name.then(|| fields.name.set(name_of(row.name))),
        (set.note != NoteChange::Kept).then(|| fields.note.set(row.note)),
    ];
    changes.into_iter().flatten().collect()
}

/// The record or error in an inspection.
pub(crate) fn inspected(inspection: &Inspection) -> Read {
    match inspection.state {
        EntryState::Missing => return Read::Nothing,
        EntryState::NotFound => return Read::Absent,
        EntryState::Record => {}
        // A miss, and no unreadable entry.
        EntryState::Stale => return Read::Nothing,
        _ => return Read::Unreadable,
    }
    let text = |name: &str| {
        let (_, value) = inspection.fields.iter().find(|(field, _)| field == name)?;
        std::str::from_utf8(value).ok()
    };
    let number = |name: &str| text(name)?.parse().ok();
    let row = || {
        let (price, stock, weight) = (number("price")?, number("stock")?, number("weight")?);
        Some(Row { price, stock, weight, name: version_of(text("name")?)?, note: number("note") })
    };
    let Some(load) = number("load") else {
        return Read::Unreadable;
    };
    Read::Record(Seen { row: row(), load, over: number("over") })
}

/// A text of a length that depends on the version.
pub(crate) fn name_of(version: u64) -> String {
    let times = 1 + version % 7;
    (0..times).map(|_| format!("{version} ")).collect()
}

fn version_of(name: &str) -> Option<u64> {
    let version = name.split(' ').next()?.parse().ok()?;
    (name_of(version) == name).then_some(version)
}
