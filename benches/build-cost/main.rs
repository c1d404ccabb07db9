//! Measures what cached structs cost a user's build, compared with hand-written code. `--help` says how to run it, and
//! `docs/performance.md` has the results.

mod project;
mod sources;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use indicatif::ProgressBar;

use self::project::{Build, Project};
use self::sources::Flavor;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Measures what cached structs cost a user's build, and prints a Markdown table. It builds two small programs, one with
/// cache-aside and one written by hand with `redis` and `serde_json`. Both get, look up, update, invalidate and get many
/// records of each struct. The programs are only built, so no server is needed.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// How many structs the programs have, each with ten fields.
    #[arg(long, default_value_t = 50)]
    structs: usize,

    /// How often the crate of each program is built. The table shows the median.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Where to write and build the programs. The next run finds their dependencies compiled there. The default is a
    /// temporary folder, which is deleted at the end.
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// The number of gets in one function.
const GETS: usize = 50;

/// How long the build of these gets may take. It can take minutes, so it runs only once.
const LIMIT: Duration = Duration::from_secs(400);

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let temporary = tempfile::tempdir()?;
    let folder = options.folder.as_deref().unwrap_or_else(|| temporary.path());
    let progress = ProgressBar::new_spinner();
    progress.enable_steady_tick(Duration::from_millis(200));

    let flavors = [Flavor::CacheAside, Flavor::ByHand];
    let mut projects = Vec::new();
    for flavor in flavors {
        let project = write(folder, flavor, "structs", &sources::structs(flavor, options.structs))?;
        progress.set_message(format!("{}: dependencies", project.name()));
        project.build_crate(None)?;
        projects.push(project);
    }
    let mut times = [Vec::new(), Vec::new()];
    for round in 1..=options.rounds {
        // The two take turns, so that other load on the machine affects both.
        for (project, times) in projects.iter().zip(&mut times) {
            progress.set_message(format!("{}: round {round} of {}", project.name(), options.rounds));
            times.extend(project.build_crate(None)?.time());
        }
    }
    let sizes = [projects[0].size()?, projects[1].size()?];

    let mut gets = Vec::new();
    for flavor in flavors {
        let project = write(folder, flavor, "gets", &sources::gets(flavor, GETS))?;
        progress.set_message(project.name().to_owned());
        gets.push(project.build_crate(Some(LIMIT))?);
    }
    progress.finish_and_clear();

    let Options { structs, rounds, .. } = options;
    println!(
        "Release builds of the crate alone. Times are medians of {rounds} rounds; the {GETS} gets are built once.\n"
    );
    println!("| | cache-aside | by hand | ratio |");
    println!("|---|--:|--:|--:|");
    let [ours, by_hand] = times.map(median);
    println!("| {structs} structs: time | {ours:.1} s | {by_hand:.1} s | {:.1} |", ours / by_hand);
    let [ours, by_hand] = sizes.map(|bytes| bytes as f64 / 1e6);
    println!("| {structs} structs: stripped binary | {ours:.2} MB | {by_hand:.2} MB | {:.1} |", ours / by_hand);
    println!("| {GETS} gets in one async function: time | {} | {} | {} |", gets[0], gets[1], ratio(&gets));
    Ok(())
}

fn write(folder: &Path, flavor: Flavor, what: &str, files: &[(String, String)]) -> io::Result<Project> {
    let name = format!("{what}-{}", flavor.name());
    Project::write(folder, name, flavor.dependencies(), files)
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

fn ratio(builds: &[Build]) -> String {
    match (builds[0].time(), builds[1].time()) {
        (Some(ours), Some(by_hand)) => format!("{:.1}", ours.div_duration_f64(by_hand)),
        _ => String::new(),
    }
}
