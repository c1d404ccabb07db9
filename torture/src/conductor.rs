//! The parent process: checks that the options make sense, starts the server, and reports the result at the end.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cache_aside::Backend;
use cache_aside::proof::Guard;

use crate::faults::Servers;
use crate::guards;
use crate::options::Options;
use crate::run::{Ended, Run};
use crate::wire::Job;
use crate::worker::CONNECT_TIMEOUT;

/// The exit code that a shell reports for a command that was ended by Ctrl-C.
const INTERRUPTED: u8 = 130;
/// A run with faults that is shorter may miss some of them.
const LONG_ENOUGH_FOR_ALL_FAULTS: Duration = Duration::from_secs(60);

pub(crate) async fn conduct(options: &Options) -> Result<ExitCode> {
    refuse_what_makes_no_sense(options)?;
    let servers = Servers::start(options).await?;
    let url = servers.url().or_else(|| options.url.clone()).context("there is no server")?;
    Backend::builder(&url).connect_timeout(CONNECT_TIMEOUT).connect().await?;
    let seed = options.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let job = Job {
        url,
        // Separates the keys of runs on one server.
        namespace: format!("torture-{:016x}", rand::random::<u64>()),
        seed,
        keys: options.keys,
        readers: options.readers,
        writers: options.writers,
        without: options.without.clone(),
        delays: options.delays,
        near: options.near,
        own_servers: servers.each_url(),
    };
    let namespace = job.namespace.clone();
    let Options { processes, readers, writers, .. } = options;
    eprintln!("seed {seed}, {processes} processes with {readers} readers and {writers} writers each");
    let (began, mut run) = (Instant::now(), Run::start(options, job).await?);
    let (may_happen, faults) = (servers.faults(options.near), run.faults.clone());
    let ended = if options.faults {
        tokio::select! {
            ended = run.rounds() => ended,
            broken = servers.torment(seed, namespace, may_happen.clone(), faults) => broken.map(|()| Ended::Interrupted),
        }
    } else {
        let ended = run.rounds().await;
        drop(servers);
        ended
    };
    run.end();
    let happened = run.faults.happened();
    if options.faults {
        run.summary.faults = Some(happened.clone());
    }
    println!("{}", run.summary);
    if run.summary.violations > 0 {
        if let Err(error) = &ended {
            eprintln!("torture: {error:#}");
        }
        return Ok(ExitCode::FAILURE);
    }
    if ended? == Ended::Interrupted {
        eprintln!("torture: stopped early: the current round is not checked");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    let mut never = run.summary.missing(began.elapsed());
    if options.faults && began.elapsed() >= LONG_ENOUGH_FOR_ALL_FAULTS {
        let may_happen = BTreeSet::from_iter(may_happen);
        let missing = may_happen.iter().filter(|fault| !happened.faults.contains_key(fault));
        never.extend(missing.map(|fault| format!("a fault that {fault}")));
    }
    if !never.is_empty() {
        eprintln!("torture: too little happened to prove anything: there was never {}", never.join(", never "));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn refuse_what_makes_no_sense(options: &Options) -> Result<()> {
    let is_in_memory = options.url.as_deref().is_some_and(|url| url.starts_with("memory:"));
    if is_in_memory && options.processes > 1 {
        bail!("memory:// is in the memory of one process: add --processes 1");
    }
    if is_in_memory && options.near {
        bail!("near caches keep nothing on memory://: leave --near out");
    }
    let without = options.without.as_deref().and_then(guards::named);
    if without.is_some_and(|guard| Guard::NEAR.contains(&guard)) && !options.near {
        bail!("--without takes out a guard of near caches: add --near");
    }
    Ok(())
}
