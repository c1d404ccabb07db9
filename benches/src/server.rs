//! A server for the time of the measurement.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Failure;

pub(crate) struct OwnServer {
    process: Child,
    port: u16,
    /// Removed with it.
    _directory: TempDir,
}

impl OwnServer {
    /// Starts `redis-server` on a free port, without persistence, and waits until it listens.
    pub(crate) fn start() -> Result<Self, Failure> {
        const START_LIMIT: Duration = Duration::from_secs(10);
        let directory = tempfile::tempdir()?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--port"]).arg(port.to_string()).arg("--dir");
        command.arg(directory.path()).stdout(Stdio::null());
        let process =
            command.spawn().map_err(|error| format!("redis-server can't be started: {error}; name a --url"))?;
        let server = Self { process, port, _directory: directory };
        let began = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if began.elapsed() > START_LIMIT {
                return Err("redis-server does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
