//! A bare HTTP client, which can also send requests that no browser would.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// Longer than any request takes on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A server's answer.
#[derive(Debug)]
pub struct Answer {
    /// For example 404.
    pub status: u16,
    /// By their names in lower case.
    pub headers: HashMap<String, String>,
    /// As text.
    pub body: String,
}

impl Answer {
    /// The body as JSON; the content type has to say that it is.
    pub fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json", "{self:?}");
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The JSON of an answer with this status.
    pub fn with(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.json()
    }

    /// The JSON of an answer with status 200.
    pub fn ok(&self) -> Value {
        self.with(200)
    }

    /// The text of an error with this status.
    pub fn error(&self, status: u16) -> String {
        self.with(status)["error"].as_str().unwrap_or_else(|| panic!("no error in {self:?}")).to_owned()
    }
}

/// Sends one request, and reads its answer.
pub fn send(address: &str, request: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    try_send(address, request, headers, body).unwrap_or_else(|error| panic!("{request} to {address}: {error}"))
}

/// The same, for a server that may not answer.
pub fn try_send(address: &str, request: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
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
    // The length decides where the answer ends: the browser's driver keeps the connection open.
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; if request.starts_with("HEAD ") { 0 } else { length }];
    stream.read_exact(&mut body)?;
    Ok(Answer { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
}
