//! The command line.

use std::path::PathBuf;

use cache_aside::proof::Guard;
use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand, ValueEnum};
use testkit::server::Flavor;

use crate::guards;

/// Tortures a cache with several processes, and checks every answer.
#[derive(Debug, Parser)]
#[command(name = "torture", args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub(crate) struct Options {
    /// A running server, such as `redis://127.0.0.1:6379`; or `memory://`, with one process
    #[arg(long, conflicts_with_all = ["server", "port"])]
    pub(crate) url: Option<String>,
    /// The server to start for the run, if there is no --url
    #[arg(long, value_enum, default_value_t = ServerName::RedisServer)]
    pub(crate) server: ServerName,
    /// The servers to start: one, a cluster of three primaries with a replica each, or a master with two replicas and
    /// three sentinels
    #[arg(long, value_enum, default_value_t = Topology::Single, conflicts_with_all = ["url", "port"])]
    pub(crate) topology: Topology,
    /// Injects faults: cuts connections, freezes and kills servers, moves slots
    #[arg(long, conflicts_with = "url")]
    pub(crate) faults: bool,
    /// Gives all caches near caches, and checks their promise
    #[arg(long)]
    pub(crate) near: bool,
    /// The port of that server; by default a free one
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// How many seconds to run
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) seconds: u64,
    /// Processes that use the cache
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) processes: u16,
    /// Writing tasks in each process
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) writers: u16,
    /// Reading tasks in each process
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) readers: u16,
    /// Rows of each round
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) keys: u32,
    /// The seed of the sequence of operations; random by default
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Repeats this round of the seed
    #[arg(long, requires = "seed")]
    pub(crate) round: Option<u64>,
    /// Takes out a guard of the protocol or of near caches; the run has to find a violation
    #[arg(long, value_parser = PossibleValuesParser::new(guards::all().map(Guard::name)))]
    pub(crate) without: Option<String>,
    /// Delays the steps of the protocol at random, as --without does
    #[arg(long)]
    pub(crate) delays: bool,
    #[command(subcommand)]
    pub(crate) part: Option<Part>,
}

/// The part of the executable that the run starts again.
#[derive(Debug, Subcommand)]
pub(crate) enum Part {
    /// One of the processes of a run
    #[command(hide = true)]
    Worker { socket: PathBuf, process: u16 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Topology {
    Single,
    Cluster,
    Sentinel,
}

/// The servers that the tests run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ServerName {
    RedisServer,
    #[value(name = "redis-8.2")]
    Redis82,
    #[value(name = "valkey-9.1")]
    Valkey91,
}

impl ServerName {
    pub(crate) fn flavor(self) -> Flavor {
        match self {
            Self::RedisServer => Flavor::Redis70,
            Self::Redis82 => Flavor::Redis82,
            Self::Valkey91 => Flavor::Valkey91,
        }
    }
}
