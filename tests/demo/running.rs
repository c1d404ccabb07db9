//! A running demo, and a bare HTTP client to talk to it, which can also send what no browser would.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::example;
use crate::harness::{Flavor, Server};

/// Longer than anything here takes on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

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

    /// Sends a form, as `id=p-001&field=stock`.
    pub(crate) fn post(&self, path: &str, form: &str) -> Answer {
        send(
            &self.address,
            &format!("POST {path}"),
            &[("Content-Type", "application/x-www-form-urlencoded")],
            form.as_bytes(),
        )
    }

    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.process.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
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
        // No panic here: it would hide the one that may be unwinding.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn command() -> Command {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| example::program("demo"));
    Command::new(&*PROGRAM)
}

/// Runs a test with the cache in memory and on a real server.
pub(crate) async fn on_every_cache(test: impl AsyncFn(&Demo)) {
    println!("on memory://");
    test(&Demo::start(&[])).await;
    println!("on a server");
    let server = Server::start(Flavor::Redis70).await;
    test(&Demo::start(&["--cache", &server.url()])).await;
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// By their names in lower case.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json", "{self:?}");
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The JSON of an answer with this status.
    pub(crate) fn with(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.json()
    }

    pub(crate) fn ok(&self) -> Value {
        self.with(200)
    }

    /// The text of an error with this status.
    pub(crate) fn error(&self, status: u16) -> String {
        self.with(status)["error"].as_str().unwrap_or_else(|| panic!("no error in {self:?}")).to_owned()
    }
}

/// Sends one request, and reads its answer.
pub(crate) fn send(address: &str, request: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    try_send(address, request, headers, body).unwrap_or_else(|error| panic!("{request} to {address}: {error}"))
}

pub(crate) fn try_send(address: &str, request: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut head = format!("{request} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| *name == "Host") {
        head.push_str(&format!("Host: {address}\r\n"));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(body)?;

    let mut stream = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        stream.read_line(&mut line).map(|_| line.trim_end().to_owned())
    };
    let malformed = |line: &str| io::Error::other(format!("the answer has the line {line:?}"));
    let first = line()?;
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| malformed(&first))?;
    let mut headers = HashMap::new();
    loop {
        let line = line()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| malformed(&line))?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    // Not to the end of the connection: the browser's driver keeps it.
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; if request.starts_with("HEAD ") { 0 } else { length }];
    stream.read_exact(&mut body)?;
    Ok(Answer { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
}
