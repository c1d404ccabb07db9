//! One contender's turn: how many calls it made, how long they took, and their cost in CPU and memory.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Handle, Runtime};

/// An operation whose cost is measured. Each caller has its own clone.
pub(crate) trait Operation: Clone + Send + Sync + 'static {
    /// `at` is different in each call.
    fn call(&mut self, at: usize) -> impl Future<Output = ()> + Send;

    /// The runtime for a caller, by its number.
    fn runtime(&self, _caller: usize) -> Handle {
        Handle::current()
    }
}

type Run = Box<dyn Fn(usize, Until) -> BoxFuture<'static, Vec<Caller>> + Send + Sync>;

/// An operation with its name in the report.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    run: Run,
}

/// The callers and their runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) threads: usize,
    pub(crate) callers: usize,
}

/// The results of all turns of a table's contenders.
pub(crate) struct Measured {
    pub(crate) title: &'static str,
    pub(crate) setting: Setting,
    /// The others are compared with the first.
    pub(crate) rows: Vec<Row>,
}

pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) samples: Vec<Sample>,
    pub(crate) allocated: Option<Allocated>,
}

/// The result of one turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Calls per second.
    pub(crate) throughput: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// CPU of a call in this process.
    pub(crate) client: Duration,
    /// CPU of a call in the server.
    pub(crate) server: Duration,
}

/// The allocations of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allocated {
    pub(crate) times: f64,
    pub(crate) bytes: f64,
}

/// When a caller ends.
#[derive(Debug, Clone, Copy)]
enum Until {
    /// The same time for all: callers that never wait run one after another.
    Time(Instant),
    Calls(usize),
}

/// The number of one caller's calls, and how long some of them took.
struct Caller {
    calls: usize,
    latencies: Vec<Duration>,
}

impl Contender {
    pub(crate) fn new(name: &'static str, operation: impl Operation) -> Self {
        let run = move |callers, until| run(operation.clone(), callers, until).boxed();
        Self { name, run: Box::new(run) }
    }

    /// Runs for the given time, on the current runtime. `observer` asks the server for its CPU time.
    pub(crate) async fn turn(
        &self,
        callers: usize,
        duration: Duration,
        observer: &mut MultiplexedConnection,
    ) -> Sample {
        let server_before = server_cpu(observer).await;
        let (client_before, began) = (client_cpu(), Instant::now());
        let ended = (self.run)(callers, Until::Time(began + duration)).await;
        let (elapsed, client) = (began.elapsed(), client_cpu().saturating_sub(client_before));
        let server = server_cpu(observer).await.saturating_sub(server_before);
        let calls: usize = ended.iter().map(|caller| caller.calls).sum();
        let mut latencies: Vec<_> = ended.into_iter().flat_map(|caller| caller.latencies).collect();
        latencies.sort_unstable();
        let quantile = |per_cent| latencies[latencies.len() * per_cent / 100];
        Sample {
            throughput: calls as f64 / elapsed.as_secs_f64(),
            p50: quantile(50),
            p99: quantile(99),
            client: client.div_f64(calls as f64),
            server: server.div_f64(calls as f64),
        }
    }

    /// Counts the allocations of calls on a runtime with one thread, including those in other tasks.
    pub(crate) fn allocations(&self, runtime: &Runtime, callers: usize) -> Allocated {
        /// Enough calls that the caller's own task doesn't matter, but not too many for a large number of callers.
        const OF_EACH: usize = 100;
        const OF_ALL: usize = 25_600;
        let of_each = (OF_ALL / callers).clamp(1, OF_EACH);
        runtime.block_on((self.run)(callers, Until::Calls(of_each)));
        let counted = allocation_counter::measure(|| {
            runtime.block_on((self.run)(callers, Until::Calls(of_each)));
        });
        let calls = (of_each * callers) as f64;
        Allocated { times: counted.count_total as f64 / calls, bytes: counted.bytes_total as f64 / calls }
    }
}

async fn run(operation: impl Operation, callers: usize, until: Until) -> Vec<Caller> {
    let spawn = |caller| operation.runtime(caller).spawn(call_repeatedly(operation.clone(), until));
    let callers: Vec<_> = (0..callers).map(spawn).collect();
    let mut ended = Vec::with_capacity(callers.len());
    for caller in callers {
        ended.push(caller.await.expect("no operation panics"));
    }
    ended
}

async fn call_repeatedly(mut operation: impl Operation, until: Until) -> Caller {
    /// Reading the clock has a cost too, which is small compared with a slow call.
    const TIMED_ONE_IN: usize = 16;
    const SLOW: Duration = Duration::from_micros(500);
    /// Different callers start at different records.
    const APART: usize = 7_919;
    static NEXT_CALLER: AtomicUsize = AtomicUsize::new(0);

    let mut at = NEXT_CALLER.fetch_add(1, Ordering::Relaxed) * APART;
    let mut caller = Caller { calls: 0, latencies: Vec::new() };
    loop {
        let was_slow = caller.latencies.last().is_some_and(|latency| *latency > SLOW);
        let is_timed = was_slow || caller.calls.is_multiple_of(TIMED_ONE_IN);
        let call_began = is_timed.then(Instant::now);
        operation.call(at).await;
        at += 1;
        caller.calls += 1;
        caller.latencies.extend(call_began.map(|began| began.elapsed()));
        let is_over = match until {
            Until::Time(end) => is_timed && Instant::now() >= end,
            Until::Calls(calls) => caller.calls >= calls,
        };
        if is_over {
            return caller;
        }
    }
}

fn client_cpu() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec.unsigned_abs(), u32::try_from(spent.tv_nsec).unwrap_or_default())
}

async fn server_cpu(observer: &mut MultiplexedConnection) -> Duration {
    let info: String = redis::cmd("INFO").arg("cpu").query_async(observer).await.expect("the server answers");
    let spent = info.lines().filter(|line| line.starts_with("used_cpu_user:") || line.starts_with("used_cpu_sys:"));
    spent.filter_map(|line| line.split_once(':')?.1.trim().parse().ok()).map(Duration::from_secs_f64).sum()
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { threads, callers } = self;
        let plural = |number: &usize| if *number == 1 { "" } else { "s" };
        write!(f, "{threads} thread{}, {callers} caller{}", plural(threads), plural(callers))
    }
}
