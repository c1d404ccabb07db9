//! The loader: late, slow, failing, panicking or hanging, as planned when the call was made.

use std::sync::Arc;
use std::time::Duration;

use cache_aside::{BoxError, Load, Loaded};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::cached::{Record, inspected};
use crate::clock;
use crate::history::{Call, Ended, Kind, Read, Seen};
use crate::operations::Stage;

/// The behaviour of a load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    before_reading: Duration,
    after_reading: Duration,
    fate: Fate,
    /// Whether the load may find a live entry: it is a refresh.
    replaces: bool,
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Return,
    Fail,
    Panic,
    Hang,
}

impl Plan {
    /// A load without any delay.
    pub(crate) const PLAIN: Self =
        Self { before_reading: Duration::ZERO, after_reading: Duration::ZERO, fate: Fate::Return, replaces: false };

    pub(crate) fn draw(rng: &mut StdRng) -> Self {
        let before_reading = if rng.random_bool(0.7) { Duration::ZERO } else { micros(rng, 3_000) };
        let after_reading = match rng.random_range(0..20) {
            0..5 => Duration::ZERO,
            5..18 => micros(rng, 10_000),
            // Longer than most leases.
            _ => micros(rng, 80_000),
        };
        let fate = match rng.random_range(0..1000) {
            0..30 => Fate::Fail,
            30..35 => Fate::Panic,
            35..38 => Fate::Hang,
            _ => Fate::Return,
        };
        Self { before_reading, after_reading, fate, replaces: false }
    }

    /// The same for a refresh.
    pub(crate) fn replacing(self) -> Self {
        Self { replaces: true, ..self }
    }
}

fn micros(rng: &mut StdRng, most: u64) -> Duration {
    Duration::from_micros(rng.random_range(0..most))
}

/// Loads a row from the primary, after a look at the entry in the cache.
pub(crate) async fn load(
    stage: Arc<Stage>,
    key: u32,
    task: u16,
    id: String,
    plan: Plan,
) -> Result<Option<Record>, BoxError> {
    let over = if plan.replaces { None } else { live_entry(&stage, key, task).await };
    let load = stage.next_load();
    let start = clock::now();
    tokio::time::sleep(plan.before_reading).await;
    let row = stage.link.read(stage.round.number, key).await?.row;
    tokio::time::sleep(plan.after_reading).await;
    let (end, ended) = (clock::now(), Ended::Done);
    let call = |ended, read| Call { start, end, ended, read, ..stage.call(key, task, Kind::Load) };
    match plan.fate {
        Fate::Return => {
            let seen = |row| Read::Record(Seen { row: Some(row), load, over });
            stage.recorder.record(call(ended, row.map_or(Read::Absent, seen)));
            Ok(row.map(|row| Record::of(row, id, load, over)))
        }
        Fate::Fail => {
            stage.recorder.record(call(Ended::Failed, Read::Nothing));
            Err("the loader fails on purpose".into())
        }
        // A panic that prints nothing.
        Fate::Panic => std::panic::resume_unwind(Box::new("on purpose")),
        Fate::Hang => std::future::pending().await,
    }
}

/// Loads a row, and confirms the record that is there if it is the same.
pub(crate) async fn confirm(
    stage: Arc<Stage>,
    key: u32,
    task: u16,
    given: Load<Record>,
    plan: Plan,
) -> Result<Loaded<Record>, BoxError> {
    let loaded = load(stage, key, task, given.id().clone(), plan).await?;
    let row = |record: &Record| record.seen().row;
    let is_same = given.stale().zip(loaded.as_ref()).is_some_and(|(old, new)| row(&old) == row(new));
    Ok(if is_same { Loaded::unchanged() } else { Loaded::from(loaded) })
}

/// The load that made the live entry; 0 for a not-found entry. The holder of a lease finds none: the lease was granted
/// because there was no entry, and nobody else can fill while it is held.
async fn live_entry(stage: &Stage, key: u32, task: u16) -> Option<u64> {
    let start = clock::now();
    let read = inspected(&stage.bare.inspect(stage.id(key)).await.ok()?);
    let end = clock::now();
    stage.recorder.record(Call { start, end, read, ..stage.call(key, task, Kind::Inspect) });
    match read {
        Read::Record(seen) => Some(seen.load),
        Read::Absent => Some(0),
        Read::Nothing | Read::Unreadable => None,
    }
}
