//! The example's program.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::json;
use testkit::http::{Answer, LIMIT, send};
use testkit::process::signal;
use tokio::time::sleep;

use crate::server::{POLL, Postgres};

/// The service on a free port; dropping it ends it.
pub(crate) struct Service {
    process: Child,
    address: String,
}

impl Service {
    pub(crate) fn start(postgres: &Postgres, cache: &str) -> Service {
        let mut process = Command::new(env!("CARGO_BIN_EXE_postgres"))
            .env("DATABASE_URL", postgres.url())
            .env("CACHE_URL", cache)
            .env("LISTEN", "127.0.0.1:0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on http://");
        let address = address.unwrap_or_else(|| panic!("no address in {line:?}")).to_owned();
        Service { process, address }
    }

    /// Asks the service to stop, and waits until it has.
    pub(crate) async fn stop(&mut self) {
        self.terminate();
        self.ended().await;
    }

    /// Asks the service to stop.
    pub(crate) fn terminate(&self) {
        signal(&self.process, "TERM");
    }

    /// Waits until the service has stopped.
    pub(crate) async fn ended(&mut self) {
        let begun = Instant::now();
        while self.process.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < LIMIT, "the service does not stop");
            sleep(POLL).await;
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        send(&self.address, &format!("GET {path}"), &[], b"")
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        send(&self.address, &format!("POST {path}"), &[("Content-Type", "application/json")], body.as_bytes())
    }

    /// Places an order, and returns the answer's status.
    pub(crate) fn order(&self, customer: i64, product: i64, quantity: i64) -> u16 {
        self.post("/orders", &order(customer, product, quantity)).status
    }

    /// Places an order, and returns the connection over which the answer will come.
    pub(crate) fn begin_order(&self, customer: i64, product: i64, quantity: i64) -> TcpStream {
        let order = order(customer, product, quantity);
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!("POST /orders HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n", self.address, order.len());
        write!(stream, "{head}Content-Type: application/json\r\n\r\n{order}").unwrap();
        stream
    }
}

fn order(customer: i64, product: i64, quantity: i64) -> String {
    json!({"customer": customer, "product": product, "quantity": quantity}).to_string()
}

impl Drop for Service {
    fn drop(&mut self) {
        // No panic here: it would hide the one that may be unwinding.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
