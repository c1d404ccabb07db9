//! A small cargo project, and how long its build takes.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use crate::Failure;

pub(crate) struct Project {
    name: String,
    folder: PathBuf,
    /// Shared by all projects, so that common dependencies are compiled once.
    target: PathBuf,
}

/// How a build ended.
pub(crate) enum Build {
    Took(Duration),
    TimedOut(Duration),
}

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

impl Project {
    pub(crate) fn write(
        folder: &Path,
        name: String,
        dependencies: &str,
        files: &[(String, String)],
    ) -> io::Result<Self> {
        // `[workspace]` keeps it out of any workspace that the folder lies in.
        let manifest = format!(
            "[package]\nname = \"{name}\"\nedition = \"2024\"\n\n[workspace]\n\n\
             [profile.release]\nstrip = \"symbols\"\n\n[dependencies]\n{dependencies}"
        )
        .replace("REPOSITORY", &format!("{REPOSITORY:?}"));
        let project = Self { folder: folder.join(&name), target: folder.join("target"), name };
        let sources = project.folder.join("src");
        if sources.exists() {
            fs::remove_dir_all(&sources)?;
        }
        fs::create_dir_all(&sources)?;
        fs::write(project.folder.join("Cargo.toml"), manifest)?;
        // With this repository's versions, which cargo has already downloaded, `--offline` works.
        fs::copy(Path::new(REPOSITORY).join("Cargo.lock"), project.folder.join("Cargo.lock"))?;
        for (file, text) in files {
            fs::write(sources.join(file), text)?;
        }
        Ok(project)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Builds the crate again, and any dependencies that are not compiled yet.
    pub(crate) fn build_crate(&self, limit: Option<Duration>) -> Result<Build, Failure> {
        File::open(self.folder.join("src/main.rs"))?.set_modified(SystemTime::now())?;
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = match limit {
            // Unlike killing cargo, `timeout` also stops the compilers that it has started.
            Some(limit) => {
                let mut timeout = Command::new("timeout");
                timeout.arg(limit.as_secs().to_string()).arg(cargo);
                timeout
            }
            None => Command::new(cargo),
        };
        command.args(["build", "--release", "--offline", "--target-dir"]).arg(&self.target).current_dir(&self.folder);
        let started = Instant::now();
        let ended = command.output()?;
        let time = started.elapsed();
        match (limit, ended.status.code()) {
            (_, Some(0)) => Ok(Build::Took(time)),
            (Some(limit), Some(124)) => Ok(Build::TimedOut(limit)),
            _ => Err(format!("{}: {}", self.name, String::from_utf8_lossy(&ended.stderr)).into()),
        }
    }

    /// The size of the binary in bytes.
    pub(crate) fn size(&self) -> io::Result<u64> {
        Ok(fs::metadata(self.target.join("release").join(&self.name))?.len())
    }
}

impl Build {
    pub(crate) fn time(&self) -> Option<Duration> {
        match self {
            Self::Took(time) => Some(*time),
            Self::TimedOut(_) => None,
        }
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Took(time) => write!(f, "{:.1} s", time.as_secs_f64()),
            Self::TimedOut(limit) => write!(f, "over {} s", limit.as_secs()),
        }
    }
}
