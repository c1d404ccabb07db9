//! Signals to the processes of a test, and their end.

use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::http::LIMIT;

/// Sends a signal, by its name: `TERM`.
pub fn signal(process: &Child, name: &str) {
    assert!(sends(process, name), "`kill -{name} {}` failed", process.id());
}

/// Ends a process with a signal, so that it can clean up, and kills it if that takes too long. Never panics: in a `drop` that
/// would hide the panic that may be unwinding.
pub fn end(process: &mut Child, name: &str) {
    const POLL: Duration = Duration::from_millis(20);
    sends(process, name);
    let begun = Instant::now();
    while matches!(process.try_wait(), Ok(None)) {
        if begun.elapsed() > LIMIT {
            let _ = process.kill();
        }
        sleep(POLL);
    }
}

fn sends(process: &Child, name: &str) -> bool {
    // The shell's own `kill`: a small system has no such program.
    let kill = format!("kill -{name} {}", process.id());
    Command::new("sh").args(["-c", &kill]).status().is_ok_and(|status| status.success())
}
