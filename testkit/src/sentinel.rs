//! A master, two replicas and the three sentinels that watch them, all of them real servers.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::server::{Flavor, Server, client, free_port};

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);
/// The sentinels' name for the master.
pub const NAME: &str = "mymaster";

/// A master with its replicas and sentinels; dropping it ends them.
#[derive(Debug)]
pub struct Group {
    /// The first master, and then its replicas.
    pub servers: Vec<Server>,
    /// All of them.
    pub sentinels: Vec<Sentinel>,
}

/// A sentinel; dropping it ends it.
#[derive(Debug)]
pub struct Sentinel {
    port: u16,
    password: Option<String>,
    process: Child,
    _dir: TempDir,
}

impl Group {
    /// Starts the group, and waits until all know each other.
    pub async fn start(flavor: Flavor) -> Self {
        Self::start_with(flavor, &[], "").await
    }

    /// The same, with more settings for the servers and lines for the sentinels.
    pub async fn start_with(flavor: Flavor, args: &[&str], lines: &str) -> Self {
        let mut servers = vec![Server::start_with(flavor, args).await];
        let master = format!("127.0.0.1 {}", servers[0].port());
        for _ in 0..2 {
            let replica = ["--replicaof", "127.0.0.1", &servers[0].port().to_string()];
            servers.push(Server::start_with(flavor, &[args, &replica].concat()).await);
        }
        let sentinels = (0..3).map(|_| Sentinel::start(flavor, free_port(), &master, lines)).collect();
        let group = Self { servers, sentinels };
        for sentinel in &group.sentinels {
            sentinel.knows_all().await;
        }
        group
    }

    /// The URL with all sentinels.
    pub fn url(&self) -> String {
        self.url_as("")
    }

    /// The URL with a user, as in `app:secret@`.
    pub fn url_as(&self, user: &str) -> String {
        let places: Vec<_> = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
        format!("redis+sentinel://{user}{}/{NAME}", places.join(","))
    }

    /// Starts one more sentinel, on this port.
    pub async fn sentinel_at(&self, flavor: Flavor, port: u16) -> Sentinel {
        let sentinel = Sentinel::start(flavor, port, &format!("127.0.0.1 {}", self.servers[0].port()), "");
        until("the sentinel answers", async || sentinel.client().await.is_ok()).await;
        sentinel
    }

    /// Makes the sentinels promote a replica while the master is healthy.
    pub async fn fail_over(&self) {
        let mut sentinel = self.sentinels[0].client().await.unwrap();
        until("the sentinels can fail over", async || {
            redis::cmd("SENTINEL").arg("FAILOVER").arg(NAME).exec_async(&mut sentinel).await.is_ok()
        })
        .await;
    }

    /// Waits until another server than this one is a master. Returns which one, and when.
    pub async fn promotion_besides(&self, old: usize) -> (usize, Instant) {
        let others = (0..self.servers.len()).filter(|number| *number != old);
        let mut clients: Vec<_> = others.map(|number| (number, None)).collect();
        let began = Instant::now();
        loop {
            for (number, kept) in &mut clients {
                let Some(connected) = kept else {
                    *kept = client(&self.servers[*number].url()).await.ok();
                    continue;
                };
                match is_master(connected).await {
                    Ok(true) => return (*number, Instant::now()),
                    Ok(false) => {}
                    // The sentinels cut all connections of a server that they promote.
                    Err(_) => *kept = None,
                }
            }
            assert!(began.elapsed() < LIMIT, "nobody was promoted");
            sleep(POLL).await;
        }
    }

    /// Makes the sentinels give up a master only after this much silence, as a busy machine may delay it.
    pub async fn be_patient(&self, silence: Duration) {
        for sentinel in &self.sentinels {
            let mut client = sentinel.client().await.unwrap();
            let set = redis::cmd("SENTINEL")
                .arg(&["SET", NAME, "down-after-milliseconds"])
                .arg(silence.as_millis())
                .to_owned();
            set.exec_async(&mut client).await.unwrap();
        }
    }

    /// The master that the sentinels name.
    pub async fn master(&self) -> usize {
        let mut sentinel = self.sentinels[0].client().await.unwrap();
        let mut ask = redis::cmd("SENTINEL");
        let (_host, port): (String, u16) =
            ask.arg("GET-MASTER-ADDR-BY-NAME").arg(NAME).query_async(&mut sentinel).await.unwrap();
        self.servers.iter().position(|server| server.port() == port).expect("it is one of the group")
    }

    /// Restarts a killed server, and waits until it follows the new master and the sentinels have noticed it.
    pub async fn bring_back(&mut self, number: usize) {
        self.servers[number].restart().await;
        self.demotion_of(number).await;
        for sentinel in &self.sentinels {
            sentinel.knows_all().await;
        }
    }

    /// Waits until a server is a replica.
    pub async fn demotion_of(&self, number: usize) {
        until("it is demoted", async || {
            let Ok(mut client) = client(&self.servers[number].url()).await else { return false };
            is_master(&mut client).await == Ok(false)
        })
        .await;
    }
}

impl Sentinel {
    /// Starts a sentinel of `master`, for example `127.0.0.1 6379`, with more lines of configuration.
    pub fn start(flavor: Flavor, port: u16, master: &str, lines: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nprotected-mode no\n\
             {lines}\n\
             sentinel monitor {NAME} {master} 2\n\
             sentinel down-after-milliseconds {NAME} 500\n\
             sentinel failover-timeout {NAME} 3000\n",
            dir.path().display()
        );
        fs::write(&config, text).unwrap();
        let log = File::create(dir.path().join("sentinel.log")).unwrap();
        let process = Command::new(flavor.binary())
            .arg(&config)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{:?} does not start: {error}", flavor.binary()));
        let password = lines.lines().find_map(|line| line.strip_prefix("requirepass ")).map(String::from);
        Self { port, password, process, _dir: dir }
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A bare client with all permissions.
    pub async fn client(&self) -> RedisResult<MultiplexedConnection> {
        let password = self.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default();
        client(&format!("redis://{password}127.0.0.1:{}", self.port)).await
    }

    /// Waits until it knows both replicas and both other sentinels.
    async fn knows_all(&self) {
        until("the sentinels know each other", async || {
            let Ok(mut client) = self.client().await else { return false };
            let master = redis::cmd("SENTINEL").arg("MASTER").arg(NAME).query_async(&mut client).await;
            let master: std::collections::HashMap<String, String> = master.unwrap();
            master["num-slaves"] == "2" && master["num-other-sentinels"] == "2"
        })
        .await;
    }

    /// Kills the process with SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn is_master(client: &mut MultiplexedConnection) -> RedisResult<bool> {
    let role: Vec<Value> = redis::cmd("ROLE").query_async(client).await?;
    Ok(role.first() == Some(&Value::BulkString(b"master".to_vec())))
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        sleep(POLL).await;
    }
}
