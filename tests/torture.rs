//! The torture tool as its users run it: it notices each guard that is taken out, and says what it lacks.
#![allow(clippy::unwrap_used, missing_docs)]

use std::net::TcpListener;
use std::process::{Command, Output};

use cache_aside::proof::Guard;

const ALL_IS_WELL: i32 = 0;
const VIOLATION: i32 = 1;
const COULD_NOT_RUN: i32 = 2;

fn torture(args: &[&str]) -> Output {
    // `cargo test` builds the examples too, beside the folder of this test.
    let mut example = std::env::current_exe().unwrap();
    example.pop();
    example.pop();
    example.push("examples/torture");
    Command::new(&example).args(args).output().unwrap_or_else(|error| panic!("{}: {error}", example.display()))
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn finds_each_guard_that_is_taken_out() {
    for guard in Guard::ALL {
        let output = torture(&["--without", guard.name(), "--seconds", "60"]);
        let text = text(&output);
        assert_eq!(output.status.code(), Some(VIOLATION), "without {guard:?}: {text}");
        assert!(text.contains("--seed") && text.contains("--round"), "without {guard:?}: {text}");
    }
}

#[test]
fn finds_nothing_in_one_process_with_all_guards_in() {
    let output = torture(&["--url", "memory://", "--processes", "1", "--seconds", "5"]);
    assert_eq!(output.status.code(), Some(ALL_IS_WELL), "{}", text(&output));
}

#[test]
fn says_what_is_missing() {
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
    ] {
        let output = torture(args);
        assert_eq!(output.status.code(), Some(COULD_NOT_RUN), "{args:?}: {}", text(&output));
        assert!(text(&output).contains(said), "{args:?}: {}", text(&output));
    }
}
