//! The programs of the examples, for tests that run them as users do.

use std::path::PathBuf;
use std::process::Command;

/// Builds an example, so that `cargo test --test ..` never runs an old one, and returns its program.
pub fn program(name: &str) -> PathBuf {
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let build = ["build", "--quiet", "--all-features", "--profile", profile, "--example", name];
    let built =
        Command::new(env!("CARGO")).args(build).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).status();
    assert!(built.is_ok_and(|status| status.success()), "the example {name} does not build");
    // In the folder next to the test's program.
    let mut program = std::env::current_exe().expect("a test's program has a path");
    program.pop();
    program.pop();
    program.push("examples");
    program.push(name);
    program
}
