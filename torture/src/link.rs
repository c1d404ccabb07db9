//! A worker's end of the connection to the parent: questions to the primary with their answers, and the rounds.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::row::Change;
use crate::wire::{self, Job, Question, Round, State, ToParent, ToWorker};

/// Queues messages for the other side. They are dropped if it has ended.
#[derive(Clone)]
pub(crate) struct Sender(mpsc::UnboundedSender<Vec<u8>>);

impl Sender {
    pub(crate) fn over(mut stream: impl AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, mut queue) = mpsc::unbounded_channel::<Vec<u8>>();
        tokio::spawn(async move {
            while let Some(frame) = queue.recv().await {
                if stream.write_all(&frame).await.is_err() {
                    return;
                }
            }
        });
        Self(sender)
    }

    pub(crate) fn send(&self, message: &impl Serialize) {
        // The reader of the other direction notices the end of the connection.
        let _ = self.0.send(wire::frame(message));
    }
}

/// A worker's access to the primary.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) sender: Sender,
    tickets: Arc<AtomicU64>,
    open: Open,
    fence: Arc<Notify>,
}

type Open = Arc<Mutex<HashMap<u64, oneshot::Sender<State>>>>;

impl Link {
    /// Connects to the parent. The channel delivers the rounds, and ends with the connection.
    pub(crate) async fn connect(socket: &Path, process: u16) -> Result<(Self, Job, mpsc::UnboundedReceiver<Round>)> {
        let stream = UnixStream::connect(socket).await.context("can't reach the parent process")?;
        let (reader, writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let sender = Sender::over(writer);
        sender.send(&ToParent::Hello { process });
        let Some(ToWorker::Job(job)) = wire::next(&mut reader).await? else {
            bail!("the parent process gave no job");
        };
        let (open, fence) = (Open::default(), Arc::<Notify>::default());
        let (rounds_in, rounds) = mpsc::unbounded_channel();
        tokio::spawn(listen(reader, open.clone(), fence.clone(), rounds_in));
        Ok((Self { sender, tickets: Arc::default(), open, fence }, job, rounds))
    }

    /// Reports that this process is quiet, and waits until all are.
    pub(crate) async fn all_quiet(&self) {
        self.sender.send(&ToParent::Quiet);
        self.fence.notified().await;
    }

    pub(crate) async fn read(&self, round: u64, key: u32) -> Result<State> {
        self.ask(Question::Read { round, key }).await
    }

    pub(crate) async fn commit(&self, round: u64, key: u32, change: Change) -> Result<State> {
        self.ask(Question::Commit { round, key, change, lock: false }).await
    }

    /// Waits for the row's lock, and commits under it. The lock stays until [`unlock`](Self::unlock).
    pub(crate) async fn lock_and_commit(&self, round: u64, key: u32, change: Change) -> Result<State> {
        self.ask(Question::Commit { round, key, change, lock: true }).await
    }

    pub(crate) fn unlock(&self, round: u64, key: u32) {
        self.sender.send(&ToParent::Unlock { round, key });
    }

    async fn ask(&self, question: Question) -> Result<State> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let (answer_in, answer) = oneshot::channel();
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(ticket, answer_in);
        self.sender.send(&ToParent::Ask { ticket, question });
        answer.await.context("the parent process has ended")
    }
}

async fn listen(
    mut reader: impl AsyncRead + Unpin,
    open: Open,
    fence: Arc<Notify>,
    rounds: mpsc::UnboundedSender<Round>,
) {
    while let Ok(Some(message)) = wire::next(&mut reader).await {
        match message {
            ToWorker::Answer { ticket, state } => {
                let asked = open.lock().unwrap_or_else(PoisonError::into_inner).remove(&ticket);
                // A load that was dropped doesn't wait for its answer any more.
                let _ = asked.map(|asked| asked.send(state));
            }
            ToWorker::Round(round) => {
                let _ = rounds.send(round);
            }
            ToWorker::Fence => fence.notify_one(),
            ToWorker::Job(_) => {}
        }
    }
    open.lock().unwrap_or_else(PoisonError::into_inner).clear();
}
