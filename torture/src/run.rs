//! The rounds of a run: sends them to the workers, collects the records, and has each round checked while the next one
//! runs. Each round uses fresh keys, so that no more than two rounds are ever in memory.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use tempfile::TempDir;
use tokio::io::{AsyncRead, BufReader};
use tokio::net::UnixListener;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Interval, interval_at, timeout};

use crate::faults;
use crate::history::Call;
use crate::judge::{Judgement, Played, judge};
use crate::link::Sender;
use crate::near;
use crate::options::{Options, Topology};
use crate::primary::{Asker, Primary};
use crate::progress::Progress;
use crate::summary::Summary;
use crate::wire::{self, Counts, Job, Round, ToParent, ToWorker};
use crate::worker;

const ROUND: Duration = Duration::from_secs(3);
/// The length of a round with near caches, which has a fence at its end.
const ROUND_WITH_NEAR: Duration = Duration::from_secs(6);
/// The length with faults: entries have to exist before and after a failover.
const ROUND_WITH_FAULTS: Duration = Duration::from_secs(8);
/// How long workers may take to start, or to end a round: longer than all their own deadlines together.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Run {
    pub(crate) summary: Summary,
    pub(crate) faults: Arc<faults::Shared>,
    round: Duration,
    seconds: u64,
    keys: u32,
    near: bool,
    only_round: Option<u64>,
    /// The command that repeats a round, without the round's number.
    again: String,
    primary: Arc<Primary>,
    workers: Vec<Sender>,
    news: mpsc::UnboundedReceiver<(u16, News)>,
    check: Option<JoinHandle<Judgement>>,
    progress: Progress,
    ticks: Interval,
    signals: [Signal; 2],
    /// Killed when the run is dropped.
    _children: Vec<Child>,
    _folder: TempDir,
}

/// A worker's messages, except questions to the primary.
enum News {
    Ready,
    History { round: u64, calls: Vec<Call> },
    Quiet,
    Done(Counts),
    Failed(String),
    Lost,
}

/// The events that a run waits for.
enum Event {
    News(News),
    Judged,
    Interrupted,
}

/// How a run, or a part of it, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Done,
    Interrupted,
}

impl Run {
    /// Starts the workers, and waits until they are connected to the cache.
    pub(crate) async fn start(options: &Options, job: Job) -> Result<Self> {
        let folder = TempDir::with_prefix_in("cache-aside-", "/tmp").context("/tmp is not writable")?;
        let socket = folder.path().join("primary.sock");
        let listener = UnixListener::bind(&socket).context("can't listen for the workers")?;
        let executable = std::env::current_exe().context("can't find this executable")?;
        let mut children = Vec::new();
        for process in 0..options.processes {
            let mut command = Command::new(&executable);
            command.arg("worker").arg(&socket).arg(process.to_string()).stdin(Stdio::null()).kill_on_drop(true);
            children.push(command.spawn().context("can't start a worker")?);
        }
        let (primary, (news_in, news)) = (Arc::new(Primary::default()), mpsc::unbounded_channel());
        let mut workers = Vec::new();
        for _ in 0..options.processes {
            let accepted = timeout(PATIENCE, listener.accept()).await.context("a worker does not start")?;
            let (reader, writer) = accepted.context("can't accept a worker")?.0.into_split();
            let sender = Sender::over(writer);
            sender.send(&ToWorker::Job(job.clone()));
            tokio::spawn(hear(BufReader::new(reader), sender.clone(), primary.clone(), news_in.clone()));
            workers.push(sender);
        }
        let progress = Progress::new(options.seconds);
        let first_tick = tokio::time::Instant::now() + progress.pace();
        let mut run = Self {
            summary: Summary::default(),
            faults: Arc::default(),
            round: match options {
                Options { faults: true, .. } => ROUND_WITH_FAULTS,
                Options { near: true, .. } => ROUND_WITH_NEAR,
                _ => ROUND,
            },
            seconds: options.seconds,
            keys: options.keys,
            near: options.near,
            only_round: options.round,
            again: again(options, job.seed),
            primary,
            workers,
            news,
            check: None,
            ticks: interval_at(first_tick, progress.pace()),
            progress,
            signals: [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?],
            _children: children,
            _folder: folder,
        };
        run.summary.near = options.near;
        run.until_ready().await?;
        Ok(run)
    }

    /// Plays and checks rounds until the time is over, there is a violation, or the user stops it.
    pub(crate) async fn rounds(&mut self) -> Result<Ended> {
        let (began, limit) = (Instant::now(), Duration::from_secs(self.seconds));
        for number in self.only_round.unwrap_or(1).. {
            let left = limit.saturating_sub(began.elapsed());
            let millis = u64::try_from(left.min(self.round).as_millis()).unwrap_or(u64::MAX);
            if millis == 0 || self.summary.violations > 0 {
                break;
            }
            let round = Round { number, seed: self.only_round.unwrap_or(number), millis };
            if self.play(round).await? == Ended::Interrupted {
                self.conclude_check().await?;
                return Ok(Ended::Interrupted);
            }
        }
        self.until_judged().await
    }

    /// Waits for the check that is under way, even if the user wants to stop it.
    async fn conclude_check(&mut self) -> Result<()> {
        if let Some(check) = self.check.take() {
            self.conclude(&check.await.context("the check of a round has ended early")?);
        }
        Ok(())
    }

    pub(crate) fn end(&self) {
        self.progress.end();
    }

    async fn until_ready(&mut self) -> Result<()> {
        let mut ready = 0;
        while ready < self.workers.len() {
            match self.event().await? {
                Event::News(News::Ready) => ready += 1,
                Event::Interrupted => bail!("stopped before the start"),
                _ => {}
            }
        }
        Ok(())
    }

    async fn until_judged(&mut self) -> Result<Ended> {
        while self.check.is_some() {
            if let Event::Interrupted = self.event().await? {
                return Ok(Ended::Interrupted);
            }
        }
        Ok(Ended::Done)
    }

    /// Plays a round to its end, and sends it to the checker; leaves it as soon as the previous round was found wrong.
    async fn play(&mut self, round: Round) -> Result<Ended> {
        self.primary.open(round.number, self.keys);
        self.faults.round.store(round.number, Ordering::Relaxed);
        for worker in &self.workers {
            worker.send(&ToWorker::Round(round));
        }
        let mut calls = Vec::new();
        let unreadable = self.summary.unreadable();
        let mut ended = self.collect(round, &mut calls).await?;
        if self.near && ended.is_continue() {
            ended = self.fence(round, &mut calls).await?;
        }
        self.conclude_unreadable(round, self.summary.unreadable() - unreadable);
        if let ControlFlow::Break(ended) = ended {
            return Ok(ended);
        }
        // Checking the previous round takes less time than this round took; if not, wait for it.
        if self.until_judged().await? == Ended::Interrupted {
            return Ok(Ended::Interrupted);
        }
        let (logs, failovers) = (self.primary.close(round.number), self.faults.happened().failovers);
        let longest_ttl = if self.near { near::LONGEST_TTL } else { worker::LONGEST_TTL };
        let played = Played { round, logs, calls, failovers, longest_ttl };
        self.check = Some(tokio::task::spawn_blocking(move || judge(played)));
        Ok(Ended::Done)
    }

    /// Stops the faults after the last write, and lets all workers read.
    async fn fence(&mut self, round: Round, calls: &mut Vec<Call>) -> Result<ControlFlow<Ended>> {
        let faults = self.faults.clone();
        let _peace = faults.peace.lock().await;
        for worker in &self.workers {
            worker.send(&ToWorker::Fence);
        }
        self.collect(round, calls).await
    }

    /// Collects the calls of a round until each worker has reported that it is quiet, or done.
    async fn collect(&mut self, round: Round, collected: &mut Vec<Call>) -> Result<ControlFlow<Ended>> {
        let mut said = 0;
        while said < self.workers.len() {
            match self.event().await? {
                Event::News(News::History { round: number, calls }) if number == round.number => {
                    self.summary.add_calls(&calls);
                    collected.extend(calls);
                }
                Event::News(News::Quiet) => said += 1,
                Event::News(News::Done(counts)) => {
                    self.summary.add_counts(counts);
                    said += 1;
                }
                Event::Interrupted => return Ok(ControlFlow::Break(Ended::Interrupted)),
                Event::Judged if self.summary.violations > 0 => return Ok(ControlFlow::Break(Ended::Done)),
                _ => {}
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Waits for the next event, and shows the progress meanwhile. A lost worker is an error.
    async fn event(&mut self) -> Result<Event> {
        let [interrupt, terminate] = &mut self.signals;
        let deadline = tokio::time::sleep(PATIENCE);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                news = self.news.recv() => match news {
                    Some((process, News::Failed(mistake))) => bail!("process {process}: {mistake}"),
                    Some((process, News::Lost)) => bail!("process {process} has ended"),
                    Some((_, news)) => return Ok(Event::News(news)),
                    None => bail!("all processes have ended"),
                },
                judgement = finished(&mut self.check) => {
                    self.check = None;
                    self.conclude(&judgement.context("the check of a round has ended early")?);
                    return Ok(Event::Judged);
                }
                _ = self.ticks.tick() => self.progress.show(&self.summary),
                _ = interrupt.recv() => return Ok(Event::Interrupted),
                _ = terminate.recv() => return Ok(Event::Interrupted),
                () = &mut deadline => bail!("the workers have sent nothing for {PATIENCE:?}"),
            }
        }
    }

    /// For a get an unreadable entry is a miss, so only the caches' own counts show it.
    fn conclude_unreadable(&mut self, round: Round, found: u64) {
        if found > 0 {
            self.summary.violations += found;
            self.report(round, &format!("VIOLATION: {found} unreadable entries were found\n"));
        }
    }

    fn conclude(&mut self, judgement: &Judgement) {
        let Judgement { round, figures, commits, violations, old_for_ever, explained, last_explained, stories } =
            judgement;
        self.summary.explained += explained;
        self.summary.last_explained = self.summary.last_explained.max(*last_explained);
        self.summary.rounds += 1;
        self.summary.figures.add(*figures);
        self.summary.commits += commits;
        self.summary.violations += violations;
        self.summary.old_for_ever += old_for_ever;
        for story in stories {
            self.report(*round, story);
        }
    }

    fn report(&self, round: Round, story: &str) {
        self.progress.end();
        println!("{story}  to repeat this round:\n    {} --round {}\n", self.again, round.seed);
    }
}

async fn finished(check: &mut Option<JoinHandle<Judgement>>) -> Result<Judgement, JoinError> {
    match check {
        Some(check) => check.await,
        None => std::future::pending().await,
    }
}

/// Listens to one worker: answers its questions from the primary, and passes on its other messages.
async fn hear(
    mut reader: impl AsyncRead + Unpin,
    sender: Sender,
    primary: Arc<Primary>,
    news: mpsc::UnboundedSender<(u16, News)>,
) {
    let Ok(Some(ToParent::Hello { process })) = wire::next(&mut reader).await else {
        return;
    };
    while let Ok(Some(message)) = wire::next(&mut reader).await {
        let said = match message {
            ToParent::Ask { ticket, question } => {
                primary.ask(Asker { process, ticket, sender: sender.clone() }, question);
                continue;
            }
            ToParent::Unlock { round, key } => {
                primary.unlock(round, key);
                continue;
            }
            ToParent::Hello { .. } => continue,
            ToParent::Ready => News::Ready,
            ToParent::History { round, calls } => News::History { round, calls },
            ToParent::Quiet => News::Quiet,
            ToParent::Done { counts } => News::Done(counts),
            ToParent::Failed { mistake } => News::Failed(mistake),
        };
        // A run that has ended doesn't receive any more.
        let _ = news.send((process, said));
    }
    primary.release(process);
    let _ = news.send((process, News::Lost));
}

/// The address without the user: people pass on the output of a run.
fn without_secrets(url: &str) -> String {
    let shown = url.split(['?', '#']).next().unwrap_or_default();
    match shown.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host)),
        None => String::new(),
    }
}

fn again(options: &Options, seed: u64) -> String {
    let Options { processes, writers, readers, keys, seconds, .. } = options;
    let mut command = "cargo run --release -p torture --".to_owned();
    let server = options.server.to_possible_value();
    let _ = match (&options.url, &server) {
        (Some(url), _) => write!(command, " --url {}", without_secrets(url)),
        (None, Some(server)) => write!(command, " --server {}", server.get_name()),
        (None, None) => Ok(()),
    };
    let _ = write!(
        command,
        " --seconds {seconds} --processes {processes} --writers {writers} --readers {readers} --keys {keys} --seed {seed}"
    );
    if let Some(topology) = options.topology.to_possible_value().filter(|_| options.topology != Topology::Single) {
        let _ = write!(command, " --topology {}", topology.get_name());
    }
    if options.faults {
        command.push_str(" --faults");
    }
    if options.near {
        command.push_str(" --near");
    }
    if options.delays {
        command.push_str(" --delays");
    }
    if let Some(guard) = &options.without {
        let _ = write!(command, " --without {guard}");
    }
    command
}
