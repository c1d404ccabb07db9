//! The messages between the parent and its workers, and their frames.

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::history::Call;
use crate::row::{Change, Row};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToParent {
    Hello {
        process: u16,
    },
    /// Connected to the cache.
    Ready,
    Ask {
        ticket: u64,
        question: Question,
    },
    Unlock {
        round: u64,
        key: u32,
    },
    History {
        round: u64,
        calls: Vec<Call>,
    },
    /// With near caches: this worker's writes have ended, and have reached the cache.
    Quiet,
    Done {
        counts: Counts,
    },
    Failed {
        mistake: String,
    },
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Question {
    Read {
        round: u64,
        key: u32,
    },
    /// Commits a change; takes the row's lock if the writer wants to exclude others until it unlocks.
    Commit {
        round: u64,
        key: u32,
        change: Change,
        lock: bool,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    Job(Job),
    Round(Round),
    Answer {
        ticket: u64,
        state: State,
    },
    /// All workers are quiet.
    Fence,
}

/// A row as it is in the primary.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) version: u64,
    pub(crate) row: Option<Row>,
    /// Whether this commit has created it.
    pub(crate) created: bool,
}

/// Settings of the whole run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) url: String,
    pub(crate) namespace: String,
    pub(crate) seed: u64,
    pub(crate) keys: u32,
    pub(crate) readers: u16,
    pub(crate) writers: u16,
    pub(crate) without: Option<String>,
    pub(crate) delays: bool,
    pub(crate) near: bool,
    /// The addresses of the servers that were started for this run, and have to end with it.
    pub(crate) own_servers: Vec<String>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Round {
    /// Part of the keys: each round has fresh ones.
    pub(crate) number: u64,
    /// Determines the tasks' operations, together with the run's seed.
    pub(crate) seed: u64,
    pub(crate) millis: u64,
}

/// The counts of one process' caches in one round.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) loads: u64,
    pub(crate) load_errors: u64,
    pub(crate) fenced_fills: u64,
    pub(crate) decode_errors: u64,
    pub(crate) near_hits: u64,
    pub(crate) near_invalidations: u64,
    pub(crate) near_flushes: u64,
    pub(crate) near_refused_inserts: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: Self) {
        self.loads += other.loads;
        self.load_errors += other.load_errors;
        self.fenced_fills += other.fenced_fills;
        self.decode_errors += other.decode_errors;
        self.near_hits += other.near_hits;
        self.near_invalidations += other.near_invalidations;
        self.near_flushes += other.near_flushes;
        self.near_refused_inserts += other.near_refused_inserts;
    }
}

/// A message with its length in front.
pub(crate) fn frame(message: &impl Serialize) -> Vec<u8> {
    // Encoding fails only for types that can't be encoded, and all of these can.
    let body = postcard::to_stdvec(message).expect("messages are plain data");
    let length = u32::try_from(body.len()).expect("a portion of the history is far below 4 GiB");
    [&length.to_le_bytes(), body.as_slice()].concat()
}

/// The next message; `None` if the other side has ended.
pub(crate) async fn next<M: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<M>> {
    let Ok(length) = stream.read_u32_le().await else {
        return Ok(None);
    };
    let mut body = vec![0; length as usize];
    if stream.read_exact(&mut body).await.is_err() {
        return Ok(None);
    }
    postcard::from_bytes(&body).map(Some).context("a message between parent and worker is malformed")
}
