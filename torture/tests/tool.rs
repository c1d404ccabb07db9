//! The torture tool as its users run it: it finds nothing with all guards, notices when one is taken out, and reports
//! missing requirements.
//!
//! How long it takes to notice depends on luck and on the machine, so those tests are ignored: `./scripts/test --all` runs
//! them. `tests/server/` forces the violation of each guard without luck.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use cache_aside::proof::Guard;
use testkit::process::signal;

const ALL_IS_WELL: i32 = 0;
const VIOLATION: i32 = 1;
const COULD_NOT_RUN: i32 = 2;
const STOPPED: i32 = 130;

fn torture(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_torture"));
    command.args(args);
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The tool ends at the first violation; this limit is for a busy machine.
fn finds_a_violation(args: &[&str]) {
    let output = torture(&[args, &["--seconds", "300"]].concat());
    let text = text(&output);
    assert_eq!(output.status.code(), Some(VIOLATION), "{args:?}: {text}");
    for told in ["VIOLATION", "--seed", "--round"] {
        assert!(text.contains(told), "{args:?}: {text}");
    }
}

#[test]
#[ignore = "depends on luck: ./scripts/test --all runs it"]
fn finds_each_guard_that_is_taken_out() {
    for guard in Guard::STORED {
        finds_a_violation(&["--without", guard.name()]);
    }
}

/// Returns the output.
fn finds_nothing(args: &[&str]) -> String {
    let output = torture(args);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(ALL_IS_WELL), "{args:?}: {text}");
    text
}

#[test]
fn finds_nothing_with_all_guards() {
    finds_nothing(&["--seconds", "20"]);
}

/// How often a replica has taken over, by the summary.
fn failovers(text: &str) -> u32 {
    let line = text.lines().find_map(|line| line.strip_prefix("failovers ")).unwrap();
    line.split(',').next().unwrap().trim().parse().unwrap()
}

#[test]
fn finds_nothing_while_servers_of_a_cluster_fail() {
    let text = finds_nothing(&["--topology", "cluster", "--faults", "--seconds", "35"]);
    assert!(failovers(&text) > 0, "{text}");
}

#[test]
fn finds_nothing_while_servers_with_sentinels_fail() {
    let text = finds_nothing(&["--topology", "sentinel", "--faults", "--seconds", "35"]);
    assert!(failovers(&text) > 0, "{text}");
}

#[test]
#[ignore = "depends on luck: ./scripts/test --all runs it"]
fn finds_a_guard_that_is_taken_out_while_servers_fail() {
    finds_a_violation(&["--topology", "cluster", "--faults", "--without", "token-check"]);
}

#[test]
fn finds_nothing_with_near_caches() {
    for faults in [None, Some("--faults")] {
        let args: Vec<_> = ["--near", "--seconds", "20"].into_iter().chain(faults).collect();
        let text = finds_nothing(&args);
        assert!(text.contains(" 0 old for ever"), "{text}");
    }
}

#[test]
#[ignore = "depends on luck: ./scripts/test --all runs it"]
fn finds_each_guard_of_near_caches_that_is_taken_out() {
    for guard in Guard::NEAR {
        // Without faults, the messages come before a stale near hit is possible.
        let faults = (guard != Guard::NearEpoch).then_some("--faults");
        finds_a_violation(&["--near", "--without", guard.name()].into_iter().chain(faults).collect::<Vec<_>>());
    }
}

#[test]
fn finds_nothing_in_one_process_with_all_guards() {
    finds_nothing(&["--url", "memory://", "--processes", "1", "--seconds", "5"]);
}

#[test]
fn does_not_say_that_all_is_well_when_it_is_stopped_early() {
    let mut command = command(&["--seconds", "60"]);
    let mut run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stderr, mut said) = (BufReader::new(run.stderr.take().unwrap()), String::new());
    // Its progress: until a round is played, there are 0 operations.
    while !said.lines().any(|line| line.contains(" operations,") && !line.contains(": 0 operations,")) {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "{said}");
    }
    signal(&run, "TERM");
    stderr.read_to_string(&mut said).unwrap();
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(STOPPED), "{said}{}", text(&output));
    assert!(said.contains("stopped early"), "{said}");
}

#[test]
fn says_which_server_is_missing() {
    let output = command(&["--seconds", "5"]).env("PATH", "").output().unwrap();
    assert_eq!(output.status.code(), Some(COULD_NOT_RUN), "{}", text(&output));
    assert!(text(&output).contains("redis-server"), "{}", text(&output));
}

#[test]
fn reports_missing_requirements() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (args, said) in [
        (&["--url", "memory://"][..], "--processes 1"),
        (&["--url", "redis://127.0.0.1:1"], "127.0.0.1:1"),
        (&["--url", "http://127.0.0.1"], "unknown scheme"),
        (&["--port", &port], "is taken"),
        (&["--server", "no-such-server"], "valkey-9.1"),
        (&["--seconds", "0"], "--seconds"),
        (&["--without", "no-such-guard"], "token-check"),
        (&["--without", "near-flush"], "add --near"),
        (&["--url", "memory://", "--processes", "1", "--near"], "leave --near out"),
    ] {
        let output = torture(args);
        assert_eq!(output.status.code(), Some(COULD_NOT_RUN), "{args:?}: {}", text(&output));
        assert!(text(&output).contains(said), "{args:?}: {}", text(&output));
    }
}
