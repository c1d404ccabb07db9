//! Reads have a connection of their own, whose replies are decoded in place.
//!
//! The driver allocates for every element of a reply, and hands replies out only when all that came with them are parsed.
//! Here a reply is slices of what was received, and its caller goes on while later ones are handed out.
//!
//! A read must not miss what the shared connection has written, so both are to the same server: this one is used as long as
//! the shared one that it was made beside is not lost, and once the server has said that it is a primary. Who loses one of
//! them gives up both.
//!
//! [`Reads`] is the queue of commands. The task that serves it begins with the first one, and ends with its connection. How
//! that is made is in `reads/dial.rs`, and what goes on over it in `reads/line.rs`.

mod dial;
mod line;

use std::array;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use redis::{RedisError, RedisResult};
use resp_rs::resp2::Frame;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, oneshot};

use self::dial::{Dialed, Undialed, dial};
use self::line::{Line, Lost};
use super::connect::{Beside, Shared};
use super::errors::connection_lost;
use super::node::Limits;
use super::replies::received;

/// The most commands that may be under way, those that nobody waits for any more included: then callers queue.
const MOST_UNDER_WAY: usize = 16_384;
/// After an attempt to connect has failed, the next one isn't made for so long.
const PAUSE: Duration = Duration::from_millis(50);

/// The connection of reads to one server, closed when this is dropped.
pub(super) struct Reads {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    connect_timeout: Duration,
}

struct Queue {
    state: Mutex<State>,
    /// For commands under way.
    room: Semaphore,
    /// Whether there is no such connection: none is wanted, or the server doesn't tell its role.
    unfit: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Commands as they are sent, and who waits for their replies, in this order.
    unsent: Vec<u8>,
    waiting: Vec<Waiter>,
    task: Task,
    /// Counts the tasks. One that is not the latest any more has been given up.
    tasks: u64,
    /// The shared connection that the latest task's is made beside, until that has ended.
    beside: Option<Beside>,
    /// When and why the last attempt to connect failed.
    failed: Option<(Instant, RedisError)>,
    /// Whether there will be no more commands.
    closed: bool,
}

type Waiter = oneshot::Sender<RedisResult<Frame>>;

/// The task that serves the queue.
#[derive(Default)]
enum Task {
    #[default]
    Absent,
    Awake,
    Asleep(Waker),
}

impl Reads {
    pub(super) fn new(shared: Arc<Shared>, Limits { connect_timeout, read_connection, .. }: Limits) -> Self {
        let room = Semaphore::new(MOST_UNDER_WAY);
        let queue = Queue { state: Mutex::default(), room, unfit: AtomicBool::new(!read_connection) };
        Self { queue: Arc::new(queue), shared, connect_timeout }
    }

    /// Whether reads have to go over the shared connection.
    pub(super) fn are_unfit(&self) -> bool {
        self.queue.unfit.load(Ordering::Relaxed)
    }

    /// Sends `N` commands together, which `encode` appends, and returns a reply to each.
    pub(super) async fn run<const N: usize>(
        &self,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> RedisResult<[RedisResult<Frame>; N]> {
        let room = self.queue.room.acquire_many(N as u32).await.map_err(|_closed| connection_lost())?;
        let replies = self.push::<N>(encode)?;
        room.forget();
        received(replies).await
    }

    fn push<const N: usize>(
        &self,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> RedisResult<[oneshot::Receiver<RedisResult<Frame>>; N]> {
        let mut state = self.queue.state();
        if let (Task::Absent, Some((when, error))) = (&state.task, &state.failed)
            && when.elapsed() < PAUSE
        {
            return Err(error.clone());
        }
        // Looked at before each command: since then nobody can have been told of a write over another connection.
        if state.beside.as_ref().is_some_and(|beside| !beside.is_current())
            && let Task::Asleep(outdated) = mem::take(&mut state.task)
        {
            outdated.wake();
        }
        encode(&mut state.unsent);
        let replies = array::from_fn(|_| {
            let (waiter, reply) = oneshot::channel();
            state.waiting.push(waiter);
            reply
        });
        match mem::replace(&mut state.task, Task::Awake) {
            Task::Awake => {}
            Task::Asleep(task) => {
                drop(state);
                task.wake();
            }
            Task::Absent => self.start(state),
        }
        Ok(replies)
    }

    fn start(&self, mut state: MutexGuard<'_, State>) {
        state.tasks += 1;
        let number = state.tasks;
        let ended_with_its_runtime = state.beside.replace(self.shared.beside());
        drop(state);
        if let Some(beside) = ended_with_its_runtime {
            self.shared.lost(&beside);
        }
        tokio::spawn(serve(Serving { queue: self.queue.clone(), number }, self.shared.clone(), self.connect_timeout));
    }
}

impl Drop for Reads {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.closed = true;
        if let Task::Asleep(task) = mem::take(&mut state.task) {
            drop(state);
            task.wake();
        }
    }
}

/// Serves a queue until it is closed, or no connection is left and no command.
async fn serve(serving: Serving, shared: Arc<Shared>, connect_timeout: Duration) {
    while serving.has_work() {
        match dial(&shared, connect_timeout).await {
            Ok(Dialed { link, beside }) => {
                serving.connected(&beside);
                if let Lost::Broken = Line::new(link, beside.clone(), &serving).await {
                    shared.lost(&beside);
                }
            }
            Err(error) => return serving.fail(&error),
        }
    }
}

/// A task's part in the queue.
struct Serving {
    queue: Arc<Queue>,
    number: u64,
}

impl Serving {
    /// The queue, unless another task has it by now, or it is closed.
    fn state(&self) -> Option<MutexGuard<'_, State>> {
        Some(self.queue.state()).filter(|state| state.tasks == self.number && !state.closed)
    }

    /// Whether there are commands to send. If not, whoever comes next starts another task.
    fn has_work(&self) -> bool {
        let Some(mut state) = self.state() else { return false };
        if state.waiting.is_empty() {
            state.leave();
        }
        !state.waiting.is_empty()
    }

    fn connected(&self, beside: &Beside) {
        if let Some(mut state) = self.state() {
            state.beside = Some(beside.clone());
            state.failed = None;
        }
    }

    /// Tells all who wait that there is no connection.
    fn fail(&self, error: &Undialed) {
        let error = match error {
            Undialed::Failed(error) => error,
            Undialed::Unfit(error) => {
                if !self.queue.unfit.swap(true, Ordering::Relaxed) {
                    let cause = error.to_string();
                    tracing::warn!(cause, "the server doesn't tell its role: reads share the connection of writes");
                }
                error
            }
        };
        let Some(mut state) = self.state() else { return };
        state.failed = Some((Instant::now(), error.clone()));
        state.leave();
        let waiting = state.take_waiting();
        drop(state);
        self.queue.answer(waiting, error);
    }
}

/// A task may also end with its runtime; then the shared connection has probably ended too.
impl Drop for Serving {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        if state.tasks == self.number && !matches!(state.task, Task::Absent) {
            state.task = Task::Absent;
            let given_up = state.take_waiting();
            drop(state);
            self.queue.answer(given_up, &connection_lost());
        }
    }
}

impl State {
    fn leave(&mut self) {
        self.task = Task::Absent;
        self.beside = None;
    }

    fn take_waiting(&mut self) -> impl ExactSizeIterator<Item = Waiter> + use<> {
        self.unsent.clear();
        mem::take(&mut self.waiting).into_iter()
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells them that there will be no reply.
    fn answer(&self, waiting: impl ExactSizeIterator<Item = Waiter>, error: &RedisError) {
        self.room.add_permits(waiting.len());
        for waiter in waiting {
            // It fails when its caller is gone.
            let _ = waiter.send(Err(error.clone()));
        }
    }
}

/// A stream of bytes in both directions.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Duplex for S {}

/// Appends a command as it is sent.
pub(super) fn encode(out: &mut Vec<u8>, args: &[&[u8]]) {
    encode_array(out, args.len());
    for arg in args {
        encode_argument(out, arg);
    }
}

/// Appends what stands before the command and its arguments.
pub(super) fn encode_array(out: &mut Vec<u8>, arguments: usize) {
    encode_length(out, b'*', arguments);
}

pub(super) fn encode_argument(out: &mut Vec<u8>, arg: &[u8]) {
    encode_length(out, b'$', arg.len());
    out.extend_from_slice(arg);
    out.extend_from_slice(b"\r\n");
}

fn encode_length(out: &mut Vec<u8>, kind: u8, length: usize) {
    out.push(kind);
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// What the server says in an error, as the driver words it.
fn server_error(text: &[u8]) -> RedisError {
    let line = [b"-", text, b"\r\n"].concat();
    match redis::parse_redis_value(&line) {
        Ok(redis::Value::ServerError(error)) => error.into(),
        Ok(_) => super::errors::unexpected_reply(),
        Err(error) => error,
    }
}
