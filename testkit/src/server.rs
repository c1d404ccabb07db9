//! Real servers for the tests: starts, freezes, kills and restarts them.
//!
//! Each [`Server`] is a process with its own port, socket and folder, and keeps nothing on disk unless its settings say
//! so. Dropping it ends the process and removes the folder. If a server is not installed or doesn't start, the test
//! fails with the reason: tests are never skipped.
//!
//! A test process that is killed by a signal leaves its servers behind; they listen only on the loopback address.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisResult};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::process::signal;

/// How long a server may take to start.
const START_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);
const PORTS_TRIED: u32 = 5;

/// The servers on which the suite runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// The system's package, 7.0 in Debian 12.
    Redis70,
    /// Installed by `./scripts/install-servers`, like the next one.
    Redis82,
    /// The fork of Redis.
    Valkey91,
}

impl Flavor {
    /// All servers.
    pub const ALL: [Flavor; 3] = [Flavor::Redis70, Flavor::Redis82, Flavor::Valkey91];

    /// The servers of which the suite forms clusters.
    pub const OF_CLUSTERS: [Flavor; 2] = [Flavor::Redis70, Flavor::Valkey91];

    /// The program; for Redis 7.0 its name, which is looked up in `PATH`.
    pub fn binary(self) -> PathBuf {
        let servers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/servers");
        match self {
            Flavor::Redis70 => PathBuf::from("redis-server"),
            Flavor::Redis82 => servers.join("redis-8.2/redis-server"),
            Flavor::Valkey91 => servers.join("valkey-9.1/valkey-server"),
        }
    }
}

/// Why a server doesn't run.
#[derive(Debug, thiserror::Error)]
pub enum Mistake {
    /// The program is missing.
    #[error("{0:?} not found: ./scripts/test installs it")]
    NotInstalled(PathBuf),
    /// Another process listens on the port.
    #[error("port {0} is taken by another process")]
    PortTaken(u16),
    /// Anything else, with the server's log.
    #[error("{0}")]
    NotRunning(String),
}

/// A running server; dropping it ends it.
#[derive(Debug)]
pub struct Server {
    flavor: Flavor,
    args: Vec<String>,
    port: u16,
    dir: TempDir,
    process: Child,
}

impl Server {
    /// Starts a server on a free port of 127.0.0.1.
    pub async fn start(flavor: Flavor) -> Server {
        Server::start_with(flavor, &[]).await
    }

    /// The same, with more settings, for example `["--requirepass", "secret"]`.
    pub async fn start_with(flavor: Flavor, args: &[&str]) -> Server {
        for _ in 0..PORTS_TRIED {
            match Server::try_start(flavor, free_port(), args).await {
                Ok(server) => return server,
                Err(Mistake::PortTaken(_)) => {}
                Err(mistake) => panic!("{mistake}"),
            }
        }
        panic!("{flavor:?}: {PORTS_TRIED} ports in a row were taken between choosing and starting");
    }

    /// Starts a server on this port, or returns why it can't.
    pub async fn try_start(flavor: Flavor, port: u16, args: &[&str]) -> Result<Server, Mistake> {
        let dir = short_dir();
        let process = spawn(flavor, port, dir.path(), args)?;
        let args = args.iter().copied().map(String::from).collect();
        let mut server = Server { flavor, args, port, dir, process };
        server.came_up().await?;
        Ok(server)
    }

    /// Which server this is.
    pub fn flavor(&self) -> Flavor {
        self.flavor
    }

    /// The URL over TCP.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The URL over the Unix socket.
    pub fn unix_url(&self) -> String {
        format!("unix://{}", socket_in(self.dir.path()).display())
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Freezes the process: connections stay open, nothing answers. The process stops a little after the signal is
    /// sent, so this waits until the system reports it as stopped.
    pub fn freeze(&self) {
        signal(&self.process, "STOP");
        let status = format!("/proc/{}/stat", self.process.id());
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let status = fs::read_to_string(&status).expect("the system tells of a child");
            if status.contains(") T ") {
                return;
            }
            assert!(Instant::now() < deadline, "not stopped by SIGSTOP: {status}");
            std::thread::yield_now();
        }
    }

    /// Continues a frozen server.
    pub fn thaw(&self) {
        signal(&self.process, "CONT");
    }

    /// Kills the process with SIGKILL, frozen or not, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.process.kill().expect("a child can be killed");
        while self.ended().is_none() {
            sleep(POLL).await;
        }
    }

    /// Kills the server if it still runs, and restarts it on the same port: empty, unless its settings say otherwise.
    pub async fn restart(&mut self) {
        self.kill().await;
        let restarted = spawn(self.flavor, self.port, self.dir.path(), &self.args);
        self.process = restarted.unwrap_or_else(|mistake| panic!("{mistake}"));
        self.came_up().await.unwrap_or_else(|mistake| panic!("{mistake}"));
    }

    /// A bare client, to look at stored data. The server must not require a password.
    pub async fn client(&self) -> MultiplexedConnection {
        client(&self.url()).await.expect("a running server accepts a client")
    }

    /// The number of connected clients, without the one that asks.
    pub async fn connections(&self) -> usize {
        let mut client = self.client().await;
        let clients: String =
            redis::cmd("CLIENT").arg("LIST").query_async(&mut client).await.expect("CLIENT LIST works");
        clients.lines().count() - 1
    }

    /// The number of calls of each command, including those in scripts, by its name in lower case.
    pub async fn calls(&self) -> HashMap<String, u64> {
        let mut client = self.client().await;
        let info: String = redis::cmd("INFO").arg("commandstats").query_async(&mut client).await.expect("INFO works");
        let counted = info.lines().filter_map(|line| {
            let (command, figures) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let (calls, _) = figures.split_once(',')?;
            Some((command.to_owned(), calls.parse().expect("a count")))
        });
        // Ignored: the commands of this look, of greetings, and of heartbeats.
        const OTHERS: [&str; 7] = ["auth", "client|setinfo", "client|setname", "hello", "info", "role", "select"];
        counted.filter(|(command, _)| !OTHERS.contains(&command.as_str())).collect()
    }

    /// Waits until the server answers.
    async fn came_up(&mut self) -> Result<(), Mistake> {
        let begun = Instant::now();
        loop {
            if answers_ping(self.dir.path()) {
                return Ok(());
            }
            let ended = self.ended();
            let log = fs::read_to_string(log_in(self.dir.path())).unwrap_or_default();
            if let Some(status) = ended {
                return Err(if log.contains("Address already in use") {
                    Mistake::PortTaken(self.port)
                } else {
                    Mistake::NotRunning(format!("{:?} ended with {status}:\n{log}", self.flavor))
                });
            }
            if begun.elapsed() >= START_LIMIT {
                return Err(Mistake::NotRunning(format!("{:?} gave no answer to PING:\n{log}", self.flavor)));
            }
            sleep(POLL).await;
        }
    }

    /// Whether it has not been killed.
    pub fn is_running(&self) -> bool {
        answers_ping(self.dir.path())
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().expect("a child can be waited for")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // No panic here: it would hide the one that may be unwinding.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The ids of the clients with tracking.
pub async fn trackers(operator: &mut MultiplexedConnection) -> RedisResult<Vec<String>> {
    let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(operator).await?;
    let field = |client: &str, name: &str| {
        client.split(' ').find_map(|field| field.strip_prefix(name)).unwrap_or_default().to_owned()
    };
    let trackers = clients.lines().filter(|client| field(client, "flags=").contains('t'));
    Ok(trackers.map(|client| field(client, "id=")).collect())
}

/// A bare client of the server at a URL.
pub async fn client(url: &str) -> RedisResult<MultiplexedConnection> {
    // The driver's own 500 ms are too short on a machine that a test keeps busy.
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(Some(START_LIMIT)).set_response_timeout(Some(START_LIMIT));
    redis::Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await
}

/// A port on 127.0.0.1 on which nothing listens, never the same twice in a row.
pub fn free_port() -> u16 {
    // Below the ports that the system gives to outgoing connections. From those, a client that keeps trying to reach a
    // stopped server could get the server's port as its own, and connect to itself.
    const FIRST: u32 = 16_384;
    const COUNT: u32 = 16_384;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Processes that run at the same time start at different places.
    let begin = std::process::id().wrapping_mul(61);
    (0..COUNT)
        .map(|_| begin.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % COUNT + FIRST)
        .map(|port| u16::try_from(port).expect("FIRST + COUNT fits"))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("one of 16,384 ports is free")
}

fn spawn(flavor: Flavor, port: u16, dir: &Path, args: &[impl AsRef<OsStr>]) -> Result<Child, Mistake> {
    let binary = flavor.binary();
    let log = File::create(log_in(dir)).expect("the folder is writable");
    let started = Command::new(&binary)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--protected-mode", "no", "--appendonly", "no", "--save", ""])
        // Otherwise a replica waits for others that want to synchronise too.
        .args(["--repl-diskless-sync-delay", "0"])
        .arg("--dir")
        .arg(dir)
        .arg("--unixsocket")
        .arg(socket_in(dir))
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file handle can be cloned"))
        .stderr(log)
        .spawn();
    started.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Mistake::NotInstalled(binary),
        _ => Mistake::NotRunning(format!("{binary:?} does not start: {error}")),
    })
}

/// Asks over the socket in the server's own folder: on the port, another program might answer.
fn answers_ping(dir: &Path) -> bool {
    let ask = || {
        let mut stream = UnixStream::connect(socket_in(dir))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"PING\r\n")?;
        let mut reply = [0; 5];
        stream.read_exact(&mut reply)?;
        std::io::Result::Ok(reply)
    };
    matches!(ask().as_ref(), Ok(b"+PONG" | b"-NOAU"))
}

/// A folder with a short name, regardless of `TMPDIR`: the path of a socket may have at most 107 bytes.
fn short_dir() -> TempDir {
    TempDir::with_prefix_in("cache-aside-", "/tmp").expect("/tmp is writable")
}

fn socket_in(dir: &Path) -> PathBuf {
    dir.join("redis.sock")
}

fn log_in(dir: &Path) -> PathBuf {
    dir.join("server.log")
}
