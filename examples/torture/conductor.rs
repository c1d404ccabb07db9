//! The parent process: makes sure that the run makes sense, starts the server, and says at the end how it went.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use cache_aside::Backend;

use crate::harness::{Server, free_port};
use crate::options::Options;
use crate::run::{Ended, Run};
use crate::wire::Job;

/// As a shell says it of a command that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;

pub(crate) async fn conduct(options: &Options) -> Result<ExitCode> {
    refuse_what_makes_no_sense(options)?;
    let (server, url) = server_and_url(options).await?;
    Backend::connect(&url).await?;
    let seed = options.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let job = Job {
        url,
        // Runs on one server don't meet.
        namespace: format!("torture-{:016x}", rand::random::<u64>()),
        seed,
        keys: options.keys,
        readers: options.readers,
        writers: options.writers,
        without: options.without.clone(),
        delays: options.delays,
        own_server: server.as_ref().map(Server::unix_url),
    };
    let Options { processes, readers, writers, .. } = options;
    eprintln!("seed {seed}, {processes} processes with {readers} readers and {writers} writers each");
    let (began, mut run) = (Instant::now(), Run::start(options, job).await?);
    let ended = run.rounds().await;
    run.end();
    println!("{}", run.summary);
    if run.summary.has_violations() {
        if let Err(error) = &ended {
            eprintln!("torture: {error:#}");
        }
        return Ok(ExitCode::FAILURE);
    }
    if ended? == Ended::Interrupted {
        eprintln!("torture: stopped early: the round that was under way is not checked");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    let never = run.summary.missing(began.elapsed());
    if !never.is_empty() {
        eprintln!("torture: too little happened to prove anything: there was never {}", never.join(", never "));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn refuse_what_makes_no_sense(options: &Options) -> Result<()> {
    if (options.without.is_some() || options.delays) && !cfg!(feature = "__proof") {
        bail!(
            "--without and --delays need a build with hooks: cargo run --release --features __proof --example torture"
        );
    }
    if options.url.as_deref().is_some_and(|url| url.starts_with("memory:")) && options.processes > 1 {
        bail!("memory:// is the memory of one process: add --processes 1");
    }
    Ok(())
}

async fn server_and_url(options: &Options) -> Result<(Option<Server>, String)> {
    if let Some(url) = &options.url {
        return Ok((None, url.clone()));
    }
    let server = Server::try_start(options.server.flavor(), options.port.unwrap_or_else(free_port), &[]).await?;
    let url = server.url();
    Ok((Some(server), url))
}
