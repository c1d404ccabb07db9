//! A running demo.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use testkit::http::{Answer, LIMIT, send};
use testkit::process;
use testkit::server::{Flavor, Server};

/// A demo on a free port; dropping it ends it.
pub(crate) struct Demo {
    process: Child,
    output: BufReader<ChildStdout>,
    /// `127.0.0.1:1234`
    pub(crate) address: String,
    /// The file of its primary.
    pub(crate) database: PathBuf,
}

impl Demo {
    pub(crate) fn start(options: &[&str]) -> Demo {
        let mut process = command().args(["--port", "0"]).args(options).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = |start: &str, end: &str| {
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            let (_, rest) = line.split_once(start).unwrap_or_else(|| panic!("no {start:?} in {line:?}"));
            rest.split(end).next().unwrap().trim_end().to_owned()
        };
        let address = line("http://", "\n");
        let database = PathBuf::from(line("primary: ", ","));
        Demo { process, output, address, database }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        send(&self.address, &format!("GET {path}"), &[], b"")
    }

    /// Sends a form, for example `id=p-001&field=stock`.
    pub(crate) fn post(&self, path: &str, form: &str) -> Answer {
        send(
            &self.address,
            &format!("POST {path}"),
            &[("Content-Type", "application/x-www-form-urlencoded")],
            form.as_bytes(),
        )
    }

    pub(crate) fn signal(&self, name: &str) {
        process::signal(&self.process, name);
    }

    /// Waits for the end, and returns the rest of the output.
    pub(crate) fn end(&mut self) -> (ExitStatus, String) {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < LIMIT, "the demo does not stop");
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        (status, rest)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // A regular end, so that it removes its database.
        process::end(&mut self.process, "TERM");
    }
}

pub(crate) fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_demo"))
}

/// Runs a test with the cache in memory and on a real server.
pub(crate) async fn on_every_cache(test: impl AsyncFn(&Demo)) {
    println!("on memory://");
    test(&Demo::start(&[])).await;
    println!("on a server");
    let server = Server::start(Flavor::Redis70).await;
    test(&Demo::start(&["--cache", &server.url()])).await;
}
