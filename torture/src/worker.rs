//! One process of a run: connects to the cache, plays each round that the parent sends, and ends with the parent.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context, Result};
use cache_aside::{Backend, Cache, Stats, UpdateTtl};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cached::Record;
use crate::guards;
use crate::history::Recorder;
use crate::link::Link;
use crate::near;
use crate::operations::{Actor, Stage};
use crate::wire::{Counts, Job, Round, ToParent};

/// In milliseconds.
pub(crate) const LONGEST_TTL: u64 = 200;
pub(crate) const LONGEST_LOAD: u64 = 250;
/// Long enough for a busy machine.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Not the number of any task: its random sequence decides the policies of a round.
const NO_TASK: u16 = u16::MAX;

pub(crate) async fn run(socket: &Path, process: u16) -> Result<()> {
    // The terminal sends Ctrl-C to all processes of a run, but this one ends with its parent.
    tokio::spawn(async { while tokio::signal::ctrl_c().await.is_ok() {} });
    let (link, job, mut rounds) = Link::connect(socket, process).await?;
    let sender = link.sender.clone();
    let worker = match Worker::start(process, link, job).await {
        Ok(worker) => Arc::new(worker),
        Err(error) => {
            sender.send(&ToParent::Failed { mistake: format!("{error:#}") });
            return linger(&mut rounds).await;
        }
    };
    sender.send(&ToParent::Ready);
    while let Some(round) = rounds.recv().await {
        // In a task of its own, so that the end of the parent is noticed at once.
        let (playing, sender) = (worker.clone(), sender.clone());
        tokio::spawn(async move {
            sender.send(&match playing.play(round).await {
                Ok(counts) => ToParent::Done { counts },
                Err(error) => ToParent::Failed { mistake: format!("{error:#}") },
            });
        });
    }
    for server in &worker.job.own_servers {
        stop(server).await;
    }
    Ok(())
}

/// Waits until the parent has received the failure, and has ended the connection.
async fn linger(rounds: &mut tokio::sync::mpsc::UnboundedReceiver<Round>) -> Result<()> {
    while rounds.recv().await.is_some() {}
    Ok(())
}

/// Stops a server in place of its parent, which may have been killed. An error means that the server has already ended.
async fn stop(server: &str) {
    if let Ok(client) = redis::Client::open(server)
        && let Ok(mut connection) = client.get_multiplexed_async_connection().await
    {
        let _ = redis::cmd("SHUTDOWN").arg("NOSAVE").exec_async(&mut connection).await;
    }
}

struct Worker {
    process: u16,
    job: Job,
    link: Link,
    /// Two connections, as two services would have; instrumented if a guard is to be taken out.
    backends: [Backend; 2],
    bare: Backend,
}

impl Worker {
    async fn start(process: u16, link: Link, job: Job) -> Result<Self> {
        let bare = connect(&job).await?;
        // A second store in memory would be another cache.
        let second = if job.url.starts_with("memory:") { bare.clone() } else { connect(&job).await? };
        let guard = job.without.as_deref().and_then(guards::named);
        let is_rigged = guard.is_some() || job.delays;
        let backends =
            [bare.clone(), second].map(|backend| if is_rigged { guards::rigged(&backend, guard) } else { backend });
        Ok(Self { process, job, link, backends, bare })
    }

    async fn play(&self, round: Round) -> Result<Counts> {
        let stage = Arc::new(self.stage(round)?);
        let end = Instant::now() + Duration::from_millis(round.millis);
        let Job { readers, writers, .. } = self.job;
        let actor = |task| Actor { stage: stage.clone(), task, rng: self.rng(round, task) };
        let mut tasks = JoinSet::new();
        for task in 0..writers + readers {
            if task < writers {
                tasks.spawn(actor(task).write_until(end));
            } else {
                tasks.spawn(actor(task).read_until(end));
            }
        }
        all_end(tasks).await?;
        if self.job.near {
            self.tell_all().await;
            self.link.all_quiet().await;
            all_end((0..readers).map(|reader| actor(writers + reader).read_at_fence(reader, readers)).collect())
                .await?;
        }
        stage.recorder.close();
        let [mut counts, _clone, other] = stage.caches.each_ref().map(|cache| counts(&cache.stats()));
        counts.add(other);
        Ok(counts)
    }

    /// Returns once failed and dropped writes have reached the cache, however long that takes.
    async fn tell_all(&self) {
        for backend in &self.backends {
            while backend.close().await.is_err() {}
        }
    }

    fn stage(&self, round: Round) -> Result<Stage> {
        let mut rng = self.rng(round, NO_TASK);
        let [first, other] = [&self.backends[0], &self.backends[1]].map(|backend| self.cache(backend, &mut rng));
        let (first, other) = (first?, other?);
        Ok(Stage {
            process: self.process,
            round,
            keys: self.job.keys,
            near: self.job.near,
            link: self.link.clone(),
            recorder: Recorder::new(round.number, self.link.sender.clone()),
            caches: [first.clone(), first, other],
            bare: Cache::builder(self.bare.clone()).namespace(&*self.job.namespace).build()?,
            loads: AtomicU64::new(0),
        })
    }

    fn cache(&self, backend: &Backend, rng: &mut StdRng) -> Result<Cache<Record>> {
        let mut millis = |least, most| Duration::from_millis(rng.random_range(least..=most));
        let (lock_ttl, ttl, not_found_ttl) = (millis(5, 50), millis(20, LONGEST_TTL), millis(10, 100));
        // Some entries outlive the round, so that a near cache has something to drop.
        let (ttl, not_found_ttl) = match self.job.near && rng.random_bool(0.5) {
            true => (Duration::from_millis(near::LONGEST_TTL), Duration::from_millis(near::LONGEST_TTL / 2)),
            false => (ttl, not_found_ttl),
        };
        // Half of the caches serve stale records while they are loaded anew, and a part of them waits for that load first.
        let window = rng.random_bool(0.5).then(|| Duration::from_millis(rng.random_range(20..200)));
        let soft_timeout = Duration::from_millis(rng.random_range(0..5));
        let update_ttl = if rng.random_bool(0.25) { UpdateTtl::Refresh } else { UpdateTtl::Keep };
        let cache = Cache::builder(backend.clone())
            .namespace(&*self.job.namespace)
            .lock_ttl(lock_ttl)
            .ttl(ttl)
            .not_found_ttl(not_found_ttl.min(ttl / 2))
            .update_ttl(update_ttl)
            .stale_while_revalidate(window)
            .soft_timeout(soft_timeout)
            .load_timeout(Duration::from_millis(LONGEST_LOAD))
            .wait_poll(Duration::from_millis(4))
            .wait_timeout(Duration::from_millis(LONGEST_LOAD))
            .near_cache(self.job.near.then(|| near::settings(self.job.keys)))
            .build();
        cache.context("a random policy is invalid")
    }

    fn rng(&self, round: Round, task: u16) -> StdRng {
        let numbers = [self.job.seed, round.seed, u64::from(self.process), u64::from(task)];
        let mut seed = [0; 32];
        for (bytes, number) in seed.chunks_exact_mut(8).zip(numbers) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
        StdRng::from_seed(seed)
    }
}

fn counts(stats: &Stats) -> Counts {
    Counts {
        loads: stats.loads,
        load_errors: stats.load_errors,
        fenced_fills: stats.fenced_fills,
        decode_errors: stats.decode_errors,
        near_hits: stats.near_hits,
        near_invalidations: stats.near_invalidations,
        near_flushes: stats.near_flushes,
        near_refused_inserts: stats.near_refused_inserts,
    }
}

async fn all_end(mut tasks: JoinSet<Result<()>>) -> Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended.context("a call on the cache has panicked")??;
    }
    Ok(())
}

/// Connects with a deadline that a busy machine can keep: with the default, too many reads would go around the cache.
async fn connect(job: &Job) -> Result<Backend> {
    let builder = Backend::builder(&job.url).operation_timeout(Duration::from_secs(5)).connect_timeout(CONNECT_TIMEOUT);
    let builder = builder.heartbeat_interval(near::HEARTBEAT_INTERVAL).heartbeat_timeout(near::HEARTBEAT_TIMEOUT);
    Ok(builder.connect().await?)
}
