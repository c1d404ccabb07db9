//! Measures the cost of each operation of cache-aside, compared with the bare driver and other caches. `--help` says
//! how to run it, and `docs/performance.md` has the results.

mod contenders;
mod measure;
mod picture;
#[allow(dead_code, reason = "hitbox's derive makes structs whose fields nobody reads")]
mod records;
mod report;
mod stampede;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use redis::aio::MultiplexedConnection;
use testkit::server::{Flavor, Server, free_port};
use tokio::runtime::{Builder, Runtime};

use self::contenders::{HITS, Table, growth};
use self::measure::{Contender, Measured, Row, Setting};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Measures the operations of cache-aside in turns with the bare driver and other caches, and prints Markdown tables
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// The server to measure, as redis://host:port, which should have no other load. The run writes keys that begin
    /// with `cache:bench`, `raw`, `cached`, `hitbox` and `rustis`. By default it starts a `redis-server`, and stops it
    /// at the end.
    #[arg(long)]
    url: Option<String>,

    /// The number of turns of each contender
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// The length of each turn, in milliseconds
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    millis: u64,

    /// The numbers of concurrent callers
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256], value_parser = at_least_one)]
    callers: Vec<usize>,

    /// The numbers of threads of their runtime, up to 64
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2], value_parser = some_threads)]
    threads: Vec<usize>,

    /// Only tables whose titles contain one of these: hits of 4, of 16, of 64 fields, of domain types, near hits, embedded hits,
    /// batches, misses, updates, invalidations, reads beside large fills, hits of several runtimes, stampede; with
    /// --growth, hits among entries, of values, of types
    #[arg(long, value_delimiter = ',')]
    tables: Vec<String>,

    /// Only contenders whose names contain one of these, and the first, with which they are compared
    #[arg(long, value_delimiter = ',')]
    contenders: Vec<String>,

    /// Measures hits with ever more entries, bytes and types instead. It writes a million entries, some 200 MB
    #[arg(long)]
    growth: bool,

    /// The file for the picture of the hits
    #[arg(long)]
    picture: Option<PathBuf>,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "it must be a number, 1 or more".to_owned())
}

fn some_threads(text: &str) -> Result<usize, String> {
    let number = at_least_one(text)?;
    if number > 64 { Err("it must be 64 or less".to_owned()) } else { Ok(number) }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let causes = std::iter::successors(Some(&*failure as &dyn std::error::Error), |error| error.source());
            eprintln!("{}", causes.map(ToString::to_string).collect::<Vec<_>>().join(": "));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let tables: &[Table] = if options.growth { &growth::TABLES } else { &contenders::TABLES };
    let tables: Vec<_> = tables.iter().filter(|table| is_chosen(&options.tables, table.title)).collect();
    let with_stampede = !options.growth && is_chosen(&options.tables, stampede::TITLE);
    if tables.is_empty() && !with_stampede {
        return Err("--tables names no table: see --help".into());
    }
    let is_shown =
        tables.iter().any(|table| table.title == HITS) && options.callers.iter().max() >= Some(&picture::MANY);
    if options.picture.is_some() && !is_shown {
        return Err(format!("--picture shows the table {HITS:?} with {} callers or more", picture::MANY).into());
    }
    let own_server = options.url.is_none().then(start_server).transpose()?;
    let url = own_server.as_ref().map_or_else(|| options.url.clone().unwrap_or_default(), Server::url);

    runtime(1)?
        .block_on(contenders::connect(&url))
        .map_err(|mistake| format!("--url can't be connected to: {mistake}"))?;
    let progress = ProgressBar::no_length().with_style(ProgressStyle::with_template("{bar:40} {percent:>3} % {msg}")?);
    if tables.iter().any(|table| table.title == growth::AMONG_ENTRIES) {
        runtime(1)?.block_on(growth::write_entries(&url))?;
    }
    let mut measured = Vec::new();
    let mut stampedes = Vec::new();
    for &threads in &options.threads {
        let runtime = runtime(threads)?;
        let mut chosen = Vec::new();
        for table in &tables {
            let contenders = runtime.block_on(contenders(options, table, &url));
            chosen.push((table.title, contenders?));
        }
        let turns: usize = chosen.iter().map(|(_, contenders)| contenders.len()).sum();
        progress.set_length((turns * options.threads.len() * options.callers.len()) as u64 * u64::from(options.rounds));
        let mut observer = runtime.block_on(contenders::connect(&url))?;
        for (title, contenders) in &chosen {
            for &callers in &options.callers {
                let setting = Setting { threads, callers };
                progress.set_message(format!("{title}, {setting}"));
                let rows = measure(options, &runtime, &mut observer, contenders, setting, &progress);
                measured.push(Measured { title, setting, rows });
            }
        }
        if with_stampede {
            stampedes.push((threads, runtime.block_on(stampede::run(&url, options.rounds))?));
        }
    }
    progress.finish_and_clear();

    report::print(&measured);
    stampede::print(&stampedes);
    if let Some(path) = &options.picture {
        picture::draw(&measured, path).map_err(|mistake| format!("{}: {mistake}", path.display()))?;
    }
    Ok(())
}

fn start_server() -> Result<Server, Failure> {
    let server = runtime(1)?.block_on(Server::try_start(Flavor::Redis70, free_port(), &[]));
    Ok(server.map_err(|mistake| format!("{mistake}; or name a server with --url"))?)
}

fn runtime(threads: usize) -> std::io::Result<Runtime> {
    if threads == 1 {
        Builder::new_current_thread().enable_all().build()
    } else {
        Builder::new_multi_thread().worker_threads(threads).enable_all().build()
    }
}

/// The chosen contenders; the one that they are compared with is always included.
async fn contenders(options: &Options, table: &Table, url: &str) -> Result<Vec<Contender>, Failure> {
    let mut place = 0;
    let mut contenders = (table.contenders)(url).await?;
    contenders.retain(|contender| {
        place += 1;
        place == 1 || is_chosen(&options.contenders, contender.name)
    });
    Ok(contenders)
}

fn is_chosen(chosen: &[String], name: &str) -> bool {
    chosen.is_empty() || chosen.iter().any(|part| name.to_lowercase().contains(&part.to_lowercase()))
}

/// Each contender has its turn in each round, so that other activity of the machine affects all of them.
fn measure(
    options: &Options,
    runtime: &Runtime,
    observer: &mut MultiplexedConnection,
    contenders: &[Contender],
    setting: Setting,
    progress: &ProgressBar,
) -> Vec<Row> {
    let mut samples = vec![Vec::new(); contenders.len()];
    for _ in 0..options.rounds {
        for (contender, samples) in contenders.iter().zip(&mut samples) {
            let turn = contender.turn(setting.callers, Duration::from_millis(options.millis), observer);
            samples.push(runtime.block_on(turn));
            progress.inc(1);
        }
    }
    // Allocations in other threads aren't counted.
    let allocated =
        |contender: &Contender| (setting.threads == 1).then(|| contender.allocations(runtime, setting.callers));
    let row =
        |(contender, samples): (&Contender, _)| Row { name: contender.name, samples, allocated: allocated(contender) };
    contenders.iter().zip(samples).map(row).collect()
}
