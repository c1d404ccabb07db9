//! The floors: the versions that later calls must see, because calls that guarantee them have returned.
//!
//! The guarantee of a call applies to all calls that start after it. Near caches have more time for writes that were
//! not made over their own backend: [`near::BOUND`]. All processes of a machine read the same clock, so nothing is
//! added for that.

use std::collections::HashMap;

use crate::history::Call;
use crate::near;

/// A version that must be seen, and the call that guarantees it; the row's first version needs none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Floor {
    pub(crate) version: u64,
    pub(crate) by: Option<usize>,
}

impl Floor {
    pub(crate) fn or_newer(self, other: Self) -> Self {
        if other.version > self.version { other } else { self }
    }
}

/// The floors of one key up to a time.
#[derive(Debug, Default)]
pub(crate) struct Floors {
    /// When the floor rose, and to which version.
    rises: Vec<(u64, Floor)>,
    /// The same for writes over one backend of one process.
    own: HashMap<(u16, Option<u8>), Floor>,
}

impl Floors {
    /// A call has returned.
    pub(crate) fn rise(&mut self, call: &Call, floor: Floor) {
        if floor.version > self.of_all().version {
            self.rises.push((call.end, floor));
        }
        let own = self.own.entry((call.process, call.backend)).or_default();
        *own = own.or_newer(floor);
    }

    /// The version that a call which starts now must see.
    pub(crate) fn due(&self, call: &Call) -> Floor {
        if !call.is_near_hit() {
            return self.of_all();
        }
        let own = self.own.get(&(call.process, call.backend)).copied().unwrap_or_default();
        own.or_newer(self.before(call.start.saturating_sub(near::BOUND_NANOS)))
    }

    /// How long something newer than this version had been guaranteed at a time.
    pub(crate) fn overdue(&self, version: u64, at: u64) -> u64 {
        let first = self.rises.partition_point(|(_, floor)| floor.version <= version);
        self.rises.get(first).map_or(0, |(risen, _)| at.saturating_sub(*risen))
    }

    fn of_all(&self) -> Floor {
        self.rises.last().map(|(_, floor)| *floor).unwrap_or_default()
    }

    fn before(&self, at: u64) -> Floor {
        let after = self.rises.partition_point(|(risen, _)| *risen < at);
        after.checked_sub(1).map(|last| self.rises[last].1).unwrap_or_default()
    }
}
