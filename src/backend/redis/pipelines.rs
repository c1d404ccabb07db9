//! Commands over the shared connection: those that callers send at the same time go out as one pipeline.
//!
//! Of each request the driver makes a message, futures and a wake-up. A pipeline of many costs that once, which counts most
//! where callers run on several threads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::{future, mem};

use futures_util::FutureExt;
use redis::{Cmd, Pipeline, RedisError, RedisResult, Value};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::connect::Shared;
use super::errors::connection_lost;
use super::replies::received;

/// The most commands of a pipeline, whose replies come all together.
const MOST: usize = 128;
/// How many replies are handed out until callers get their turn: their next commands are on the way while the rest is handed
/// out, so that server and client work at the same time.
const TURN: usize = 16;

pub(super) struct Pipelines {
    shared: Arc<Shared>,
    queue: Arc<Mutex<Queue>>,
}

#[derive(Default)]
struct Queue {
    batch: Batch,
    /// What sends them.
    task: Option<JoinHandle<()>>,
}

/// Commands, and who waits for their replies.
#[derive(Default)]
struct Batch {
    pipeline: Pipeline,
    waiting: Vec<Waiter>,
}

type Waiter = oneshot::Sender<RedisResult<Value>>;

impl Pipelines {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, queue: Arc::default() }
    }

    /// Queues a command, and returns its reply.
    pub(super) fn run(&self, command: Cmd) -> impl Future<Output = RedisResult<Value>> + use<> {
        let [reply] = self.push([command]);
        reply.map(|reply| reply.unwrap_or_else(|_task_ended| Err(connection_lost())))
    }

    /// Queues `N` commands at once, to be sent one right after the other, and returns a reply to each.
    pub(super) fn run_all<const N: usize>(
        &self,
        commands: [Cmd; N],
    ) -> impl Future<Output = RedisResult<[RedisResult<Value>; N]>> + use<N> {
        received(self.push(commands))
    }

    fn push<const N: usize>(&self, commands: [Cmd; N]) -> [oneshot::Receiver<RedisResult<Value>>; N] {
        let mut queue = lock(&self.queue);
        if queue.batch.waiting.len() + N > MOST {
            tokio::spawn(send(self.shared.clone(), queue.batch.take()));
        }
        let replies = commands.map(|command| {
            let (waiter, reply) = oneshot::channel();
            queue.batch.add(command, waiter);
            reply
        });
        // It has ended before its turn if its runtime has shut down.
        if queue.task.as_ref().is_none_or(JoinHandle::is_finished) {
            self.start(&mut queue);
        }
        replies
    }

    fn start(&self, queue: &mut Queue) {
        let (shared, gathered) = (self.shared.clone(), self.queue.clone());
        queue.task = Some(tokio::spawn(async move {
            others_first().await;
            let batch = {
                let mut queue = lock(&gathered);
                queue.task = None;
                queue.batch.take()
            };
            send(shared, batch).await;
        }));
    }

    /// After a step got no answer: the task may be one of a runtime that nobody drives.
    pub(super) fn timed_out(&self) {
        let mut queue = lock(&self.queue);
        if !queue.batch.waiting.is_empty() {
            self.start(&mut queue);
        }
    }
}

impl Batch {
    fn with_capacity(commands: usize) -> Self {
        Self { pipeline: Pipeline::with_capacity(commands), waiting: Vec::with_capacity(commands) }
    }

    fn add(&mut self, command: Cmd, waiter: Waiter) {
        self.pipeline.add_command(command);
        self.waiting.push(waiter);
    }

    /// Leaves room for as many.
    fn take(&mut self) -> Self {
        let room = Self::with_capacity(self.waiting.len());
        mem::replace(self, room)
    }

    /// Without the commands whose replies nobody waits for any more.
    fn wanted(self) -> Self {
        if !self.waiting.iter().any(Waiter::is_closed) {
            return self;
        }
        let mut wanted = Self::default();
        for (command, waiter) in self.pipeline.cmd_iter().zip(self.waiting) {
            if !waiter.is_closed() {
                wanted.add(command.clone(), waiter);
            }
        }
        wanted
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets the tasks that are ready run, which may have commands too.
async fn others_first() {
    let mut have_run = false;
    future::poll_fn(|cx| {
        if mem::replace(&mut have_run, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Ends without the replies when nobody waits for them any more.
async fn send(shared: Arc<Shared>, mut batch: Batch) {
    let connection = tokio::select! {
        biased;
        connection = shared.connection() => connection,
        () = nobody_waits(&mut batch.waiting) => return,
    };
    let Batch { pipeline, mut waiting } = batch.wanted();
    if waiting.is_empty() {
        return;
    }
    let exchange = async {
        let mut connection = connection?;
        let replies = connection.link.send(&pipeline).await;
        shared.check(&connection, replies.as_ref().err());
        let replies = replies?;
        for error in replies.iter().filter_map(server_error) {
            shared.check(&connection, Some(&error));
        }
        Ok(replies)
    };
    let replies = tokio::select! {
        biased;
        replies = exchange => replies,
        () = nobody_waits(&mut waiting) => return,
    };
    // Its memory is what the next commands of those who get their replies now are made of.
    drop(pipeline);
    let replies = match replies {
        Ok(replies) => replies,
        Err(error) => return fail(waiting, &error),
    };
    for (at, (waiter, reply)) in waiting.into_iter().zip(replies).enumerate() {
        if at > 0 && at % TURN == 0 {
            others_first().await;
        }
        // It fails when its caller is gone.
        let _ = waiter.send(server_error(&reply).map_or(Ok(reply), Err));
    }
}

fn fail(waiting: Vec<Waiter>, error: &RedisError) {
    for waiter in waiting {
        let _ = waiter.send(Err(error.clone()));
    }
}

async fn nobody_waits(waiting: &mut [Waiter]) {
    for waiter in waiting {
        waiter.closed().await;
    }
}

fn server_error(reply: &Value) -> Option<RedisError> {
    match reply {
        Value::ServerError(error) => Some(error.clone().into()),
        _ => None,
    }
}
