//! Programs of other people that clients of Redis can connect to: proxies in front of real servers, and a look-alike.
//!
//! Each [`Program`] is a process with its own port and folder. Dropping it ends the process and removes the folder. If a program
//! is not installed or doesn't start, the test fails with the reason.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::time::sleep;

use crate::server::free_port;

/// How long a program may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);
const PORTS_TRIED: u32 = 5;

/// A program that listens; dropping it ends it.
#[derive(Debug)]
pub struct Program {
    port: u16,
    dir: TempDir,
    process: Child,
}

impl Program {
    /// twemproxy, with one pool over the servers on these ports. The lease of an entry is at the entry's server, since the tag in
    /// its key is the key of the entry.
    pub async fn twemproxy(servers: &[u16]) -> Self {
        Self::start(|port, dir| {
            let servers: String = servers.iter().map(|server| format!("    - 127.0.0.1:{server}:1\n")).collect();
            let settings = format!(
                "pool:\n  listen: 127.0.0.1:{port}\n  redis: true\n  hash: fnv1a_64\n  hash_tag: \"{{}}\"\n  \
                 distribution: modula\n  auto_eject_hosts: false\n  timeout: 2000\n  servers:\n{servers}"
            );
            let settings = written(dir, "nutcracker.yml", &settings);
            let mut nutcracker = system_program("nutcracker");
            nutcracker.arg("--conf-file").arg(settings).arg("--pid-file").arg(dir.join("nutcracker.pid"));
            nutcracker.arg("--output").arg(log_in(dir));
            nutcracker.args(["--stats-addr", "127.0.0.1", "--stats-port"]).arg(free_port().to_string());
            nutcracker
        })
        .await
    }

    /// Envoy's Redis proxy, with one cluster of the servers on these ports, among which it divides the keys.
    pub async fn envoy(servers: &[u16]) -> Self {
        Self::start(|port, dir| {
            let endpoint = |server: &u16| serde_json::json!({"endpoint": {"address": address(*server)}});
            let proxy = serde_json::json!({
                "@type": "type.googleapis.com/envoy.extensions.filters.network.redis_proxy.v3.RedisProxy",
                "stat_prefix": "redis",
                "settings": {"op_timeout": "2s", "enable_hashtagging": true},
                "prefix_routes": {"catch_all_route": {"cluster": "redis"}},
            });
            let filter = serde_json::json!({"name": "envoy.filters.network.redis_proxy", "typed_config": proxy});
            let settings = serde_json::json!({"static_resources": {
                "listeners": [{
                    "name": "redis",
                    "address": address(port),
                    "filter_chains": [{"filters": [filter]}],
                }],
                "clusters": [{
                    "name": "redis",
                    "type": "STATIC",
                    "lb_policy": "MAGLEV",
                    "load_assignment": {
                        "cluster_name": "redis",
                        "endpoints": [{"lb_endpoints": servers.iter().map(endpoint).collect::<Vec<_>>()}],
                    },
                }],
            }});
            let settings = written(dir, "envoy.json", &settings.to_string());
            let mut envoy = Command::new(in_target("servers/envoy-1.40/envoy"));
            envoy.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning", "--config-path"]);
            envoy.arg(settings);
            envoy
        })
        .await
    }

    /// HAProxy in TCP mode in front of the servers on these ports: it sends clients to those that say that they are a master, and
    /// cuts connections that carry nothing for `idle`. With `cuts_failed`, also those to a server that is no master any more.
    pub async fn haproxy(servers: &[u16], idle: Duration, cuts_failed: bool) -> Self {
        let haproxy = Self::start(|port, dir| {
            let lines = servers.iter().map(|server| format!("    server {server} 127.0.0.1:{server}\n"));
            let (lines, idle) = (lines.collect::<String>(), idle.as_millis());
            let on_failure = if cuts_failed { "on-marked-down shutdown-sessions" } else { "" };
            let socket = admin_socket(dir);
            let settings = format!(
                r"
global
    nbthread 1
    maxconn 200
    stats socket {socket} level admin
defaults
    mode tcp
    timeout connect 1s
    timeout client {idle}ms
    timeout server {idle}ms
    timeout check 1s
frontend redis
    bind 127.0.0.1:{port}
    default_backend servers
backend servers
    option tcp-check
    tcp-check send info\ replication\r\nquit\r\n
    tcp-check expect string role:master
    default-server check inter 100ms fall 1 rise 1 {on_failure}
{lines}",
                socket = socket.display(),
            );
            let settings = written(dir, "haproxy.cfg", &settings);
            let mut haproxy = system_program("haproxy");
            haproxy.arg("-db").arg("-f").arg(settings);
            haproxy
        })
        .await;
        // It may listen before its admin socket is there.
        while UnixStream::connect(admin_socket(haproxy.dir.path())).is_err() {
            sleep(POLL).await;
        }
        // Until its first check HAProxy takes each server for a master.
        while haproxy.ask_haproxy("show stat").contains("INI") {
            sleep(POLL).await;
        }
        haproxy
    }

    /// Makes HAProxy cut all connections to the server on this port.
    pub fn cut_connections_to(&self, server: u16) {
        assert_eq!(self.ask_haproxy(&format!("shutdown sessions server servers/{server}")).trim(), "");
    }

    fn ask_haproxy(&self, command: &str) -> String {
        let begun = Instant::now();
        let mut socket = loop {
            // It gets its name a moment after HAProxy listens.
            match UnixStream::connect(admin_socket(self.dir.path())) {
                Ok(socket) => break socket,
                Err(error) => assert!(begun.elapsed() < START_LIMIT, "HAProxy has no socket: {error}"),
            }
            std::thread::sleep(POLL);
        };
        writeln!(socket, "{command}").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    /// fakeredis, a look-alike in Python, without `lupa`, which its scripts would need.
    pub async fn fakeredis() -> Self {
        const SERVER: &str = "
import sys
port, packages = sys.argv[1:]
sys.path.insert(0, packages)
from fakeredis import TcpFakeServer
TcpFakeServer.daemon_threads = True
TcpFakeServer(('127.0.0.1', int(port)), server_type='redis', server_version=(7, 0)).serve_forever()";
        Self::start(|port, _| {
            let mut python = Command::new("python3");
            // Without the system's packages: `lupa` may be among them.
            python.args(["-I", "-S", "-c", SERVER, &port.to_string()]).arg(in_target("python"));
            python
        })
        .await
    }

    /// The URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    async fn start(command: impl Fn(u16, &Path) -> Command) -> Self {
        let mut log = String::new();
        for _ in 0..PORTS_TRIED {
            let (port, dir) = (free_port(), TempDir::with_prefix_in("cache-aside-", "/tmp").expect("/tmp is writable"));
            let process = spawn(&mut command(port, dir.path()), dir.path());
            let mut program = Self { port, dir, process };
            if program.listens().await {
                return program;
            }
            // Another process may have taken one of its ports.
            log = fs::read_to_string(log_in(program.dir.path())).unwrap_or_default();
        }
        panic!("the program does not start:\n{log}");
    }

    /// Waits until the program listens; returns whether it still runs then.
    async fn listens(&mut self) -> bool {
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            if self.has_ended() || begun.elapsed() > START_LIMIT {
                return false;
            }
            sleep(POLL).await;
        }
        !self.has_ended()
    }

    fn has_ended(&mut self) -> bool {
        self.process.try_wait().expect("a child can be waited for").is_some()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // No panic here: it would hide the one that may be unwinding.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(command: &mut Command, dir: &Path) -> Child {
    let log = File::create(log_in(dir)).expect("the folder is writable");
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file handle can be cloned")).stderr(log);
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}: ./scripts/test installs it"))
}

/// A program of the system's packages. Those for administrators are where not every user's `PATH` leads.
fn system_program(name: &str) -> Command {
    let path = Path::new("/usr/sbin").join(name);
    if path.exists() { Command::new(path) } else { Command::new(name) }
}

fn in_target(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target").join(path)
}

fn address(port: u16) -> serde_json::Value {
    serde_json::json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

fn written(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).expect("the folder is writable");
    path
}

fn admin_socket(dir: &Path) -> PathBuf {
    dir.join("admin.sock")
}

fn log_in(dir: &Path) -> PathBuf {
    dir.join("program.log")
}
