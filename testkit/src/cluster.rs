//! Real clusters for the tests: three primaries with a replica each, and moving slots. Also runs tests once more on
//! such a cluster, in a process of their own.

use std::cell::Cell;
use std::process::Stdio;
use std::time::{Duration, Instant};

use redis::{Cmd, Value};
use tokio::time::sleep;

use crate::server::{Flavor, Server, free_port};

const SLOTS: u16 = 16_384;
const PRIMARIES: usize = 3;
/// How long a cluster may take until its servers agree.
const AGREE_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// The environment variable that names the cluster to the tests that run once more.
const ONCE_MORE_ON: &str = "CACHE_ASIDE_TESTS_ONCE_MORE_ON";
/// Keeps slots that are copied from changing hands.
const HOLD: &str = "DEBUG SLOTMIGRATION PREVENT-PAUSE";
/// How long a primary may be silent until its replica takes over.
const NODE_TIMEOUT: &str = "1000";

/// How the slots of a cluster move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moves {
    /// By `MIGRATE`: while a slot is open, each of its keys is at one of two servers.
    KeyByKey,
    /// By `CLUSTER MIGRATESLOTS`: the slot is copied, and changes hands with all of its keys at once.
    Atomically,
}

impl Moves {
    /// The clusters of the suite, each with the ways in which its slots can move.
    pub const ON: [(Flavor, Moves); 3] = [
        (Flavor::Redis70, Moves::KeyByKey),
        (Flavor::Valkey91, Moves::KeyByKey),
        (Flavor::Valkey91, Moves::Atomically),
    ];
}

/// A running cluster; dropping it ends its servers.
#[derive(Debug)]
pub struct Cluster {
    /// The primaries, then the replica of each, and then primaries that were added.
    pub servers: Vec<Server>,
    ids: Vec<String>,
    /// How slots move from now on.
    pub moves: Moves,
}

impl Cluster {
    /// Starts a cluster whose slots are spread evenly, and move in this way.
    pub async fn start_moving(flavor: Flavor, moves: Moves) -> Self {
        Self { moves, ..Self::start(flavor).await }
    }

    /// Starts a cluster whose slots are spread evenly, and move key by key.
    pub async fn start(flavor: Flavor) -> Self {
        let mut servers = Vec::new();
        for _ in 0..2 * PRIMARIES {
            servers.push(start_member(flavor).await);
        }
        let mut ids = Vec::new();
        for server in &servers {
            ids.push(ask(server, "CLUSTER MYID").await);
        }
        let cluster = Self { servers, ids, moves: Moves::KeyByKey };
        cluster.form().await;
        cluster
    }

    async fn form(&self) {
        let share = SLOTS / PRIMARIES as u16 + 1;
        for (index, server) in self.servers.iter().enumerate() {
            tell(server, &format!("CLUSTER SET-CONFIG-EPOCH {}", index + 1)).await;
            if index < PRIMARIES {
                let first = share * index as u16;
                tell(server, &format!("CLUSTER ADDSLOTSRANGE {first} {}", (first + share).min(SLOTS) - 1)).await;
            }
        }
        for server in &self.servers[1..] {
            self.meet(server).await;
        }
        self.all_know_each_other().await;
        for (index, server) in self.servers.iter().enumerate().skip(PRIMARIES) {
            tell(server, &format!("CLUSTER REPLICATE {}", self.ids[index - PRIMARIES])).await;
        }
        self.well().await;
    }

    async fn meet(&self, server: &Server) {
        let bus: String =
            ask(server, "CONFIG GET cluster-port").await.split_whitespace().nth(1).expect("a value").to_owned();
        tell(&self.servers[0], &format!("CLUSTER MEET 127.0.0.1 {} {bus}", server.port())).await;
    }

    async fn all_know_each_other(&self) {
        self.agree("all know each other", async |server| {
            ask(server, "CLUSTER NODES").await.lines().filter(|line| !line.contains("handshake")).count()
                == self.servers.len()
        })
        .await;
    }

    /// Starts one more primary, which has no slots. Returns its index.
    pub async fn add_primary(&mut self, flavor: Flavor) -> usize {
        let server = start_member(flavor).await;
        tell(&server, &format!("CLUSTER SET-CONFIG-EPOCH {}", self.servers.len() + 1)).await;
        self.meet(&server).await;
        self.ids.push(ask(&server, "CLUSTER MYID").await);
        self.servers.push(server);
        self.all_know_each_other().await;
        self.well().await;
        self.servers.len() - 1
    }

    async fn well(&self) {
        self.agree("replicas follow, and all slots are served", async |server| {
            let replication = ask(server, "INFO replication").await;
            let follows = replication.contains("role:master") || replication.contains("master_link_status:up");
            let nodes = ask(server, "CLUSTER NODES").await;
            let replicas = nodes.lines().filter(|line| line.contains("slave")).count();
            let all_are_up = !nodes.contains("fail");
            follows
                && replicas == PRIMARIES
                && all_are_up
                && ask(server, "CLUSTER INFO").await.contains("cluster_state:ok")
        })
        .await;
    }

    async fn agree(&self, what: &str, agrees: impl AsyncFn(&Server) -> bool) {
        let begun = Instant::now();
        for server in self.servers.iter().filter(|server| server.is_running()) {
            while !agrees(server).await {
                assert!(begun.elapsed() < AGREE_LIMIT, "not within {AGREE_LIMIT:?}: {what}");
                sleep(POLL).await;
            }
        }
    }

    /// A URL with two of the servers, as a user writes it.
    pub fn url(&self) -> String {
        let places: Vec<_> = self.servers[..2].iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
        format!("redis+cluster://{}", places.join(","))
    }

    /// The ways in which slots can move.
    pub fn ways_to_move(&self) -> Vec<Moves> {
        let flavor = self.servers[0].flavor();
        Moves::ON.into_iter().filter(|(of, _)| *of == flavor).map(|(_, moves)| moves).collect()
    }

    /// The index of the server that has the key's slot.
    pub async fn owner(&self, key: &str) -> usize {
        let slot = self.slot(key).await;
        for index in (0..self.servers.len()).filter(|index| self.servers[*index].is_running()) {
            if self.has_slot(index, slot).await {
                return index;
            }
        }
        panic!("no server has the slot of {key}");
    }

    async fn has_slot(&self, index: usize, slot: u16) -> bool {
        let nodes = ask(&self.servers[index], "CLUSTER NODES").await;
        let own = nodes.lines().find(|line| line.contains("myself")).expect("each server lists itself");
        own.contains("master") && own.split(' ').skip(8).any(|range| contains(range, slot))
    }

    /// The primary that has the key, and its replica.
    pub async fn pair(&self, key: &str) -> [&Server; 2] {
        let owner = self.owner(key).await;
        [owner, (owner + PRIMARIES) % (2 * PRIMARIES)].map(|index| &self.servers[index])
    }

    /// Starts to move the key's slot to another primary. From now on either may have its keys, if they move one by one; or the
    /// slot has been copied, and each write is passed on. Returns both.
    pub async fn open(&self, key: &str) -> (usize, usize) {
        let source = self.owner(key).await;
        // One of each pair is a primary.
        let next = (source + 1) % PRIMARIES;
        let target = if self.is_primary(next).await { next } else { next + PRIMARIES };
        self.open_to(key, target).await
    }

    /// The same, to this primary.
    pub async fn open_to(&self, key: &str, target: usize) -> (usize, usize) {
        let (source, slot) = (self.owner(key).await, self.slot(key).await);
        match self.moves {
            Moves::KeyByKey => {
                tell(&self.servers[target], &format!("CLUSTER SETSLOT {slot} IMPORTING {}", self.ids[source])).await;
                tell(&self.servers[source], &format!("CLUSTER SETSLOT {slot} MIGRATING {}", self.ids[target])).await;
            }
            Moves::Atomically => {
                tell(&self.servers[source], &format!("{HOLD} 1")).await;
                self.copy(slot, (source, target), "waiting-to-pause").await;
            }
        }
        (source, target)
    }

    /// Moves one key, if it exists, between two primaries between which its slot is open. The keys of a slot that changes hands
    /// at once stay where they are.
    pub async fn migrate(&self, key: &str, (source, target): (usize, usize)) {
        if self.moves == Moves::KeyByKey {
            let target = self.servers[target].port();
            tell(&self.servers[source], &format!("MIGRATE 127.0.0.1 {target} {key} 0 5000")).await;
        }
    }

    /// Moves the rest of the slot's keys, and ends the move.
    pub async fn close(&self, key: &str, (source, target): (usize, usize)) {
        let slot = self.slot(key).await;
        if self.moves == Moves::Atomically {
            tell(&self.servers[source], &format!("{HOLD} 0")).await;
            return self.copy(slot, (source, target), "success").await;
        }
        loop {
            let keys = ask(&self.servers[source], &format!("CLUSTER GETKEYSINSLOT {slot} 100")).await;
            if keys.is_empty() {
                break;
            }
            for key in keys.split_whitespace() {
                self.migrate(key, (source, target)).await;
            }
        }
        for server in [target, source] {
            tell(&self.servers[server], &format!("CLUSTER SETSLOT {slot} NODE {}", self.ids[target])).await;
        }
    }

    /// Has a slot copied until that has come to this state. Starts again when it has failed, as by `FLUSHALL`.
    async fn copy(&self, slot: u16, (source, target): (usize, usize), until: &str) {
        let begun = Instant::now();
        while !(until == "success" && self.has_slot(target, slot).await && !self.has_slot(source, slot).await) {
            assert!(begun.elapsed() < AGREE_LIMIT, "slot {slot} was not moved within {AGREE_LIMIT:?}");
            let jobs = ask(&self.servers[source], "CLUSTER GETSLOTMIGRATIONS").await;
            let states = jobs.lines().zip(jobs.lines().skip(1)).filter(|(name, _)| *name == "state");
            let under_way =
                states.map(|(_, state)| state).find(|state| !["success", "failed", "cancelled"].contains(state));
            match under_way {
                Some(state) if state == until => return,
                Some(_) => sleep(POLL).await,
                None if self.has_slot(source, slot).await => {
                    let target = &self.ids[target];
                    tell(
                        &self.servers[source],
                        &format!("CLUSTER MIGRATESLOTS SLOTSRANGE {slot} {slot} NODE {target}"),
                    )
                    .await;
                }
                None => sleep(POLL).await,
            }
        }
    }

    /// Moves the key's slot to another primary.
    pub async fn move_slot(&self, key: &str) {
        let way = self.open(key).await;
        self.close(key, way).await;
    }

    async fn is_primary(&self, index: usize) -> bool {
        ask(&self.servers[index], "INFO replication").await.contains("role:master")
    }

    /// Kills the primary that has the key, and waits until all servers know that its replica has taken over. Returns
    /// the index of the killed one.
    pub async fn fail_over(&mut self, key: &str) -> usize {
        let owner = self.owner(key).await;
        self.servers[owner].kill().await;
        self.taken_over(owner).await;
        owner
    }

    /// Waits until all servers know that the replica of a killed primary has taken over.
    pub async fn taken_over(&self, owner: usize) {
        let successor = &self.ids[(owner + PRIMARIES) % (2 * PRIMARIES)];
        self.agree("a replica has taken over", async |server| {
            let nodes = ask(server, "CLUSTER NODES").await;
            let line = nodes.lines().find(|line| line.starts_with(successor)).unwrap_or_default();
            line.contains("master") && line.split(' ').nth(8).is_some()
        })
        .await;
    }

    /// Restarts a killed server, and waits until it follows the server that has taken over.
    pub async fn bring_back(&mut self, index: usize) {
        self.servers[index].restart().await;
        self.well().await;
    }
}

async fn start_member(flavor: Flavor) -> Server {
    let bus = free_port().to_string();
    let mut settings = vec!["--cluster-enabled", "yes", "--cluster-port", &bus];
    settings.extend(["--cluster-node-timeout", NODE_TIMEOUT, "--cluster-require-full-coverage", "no"]);
    settings.extend(["--enable-debug-command", "yes"]);
    Server::start_with(flavor, &settings).await
}

/// A command that must succeed.
async fn tell(server: &Server, command: &str) {
    ask(server, command).await;
}

/// The reply as text; an array has one line for each element.
pub async fn ask(server: &Server, command: &str) -> String {
    let mut words = command.split(' ');
    let mut cmd: Cmd = redis::cmd(words.next().expect("a command has a name"));
    cmd.arg(words.collect::<Vec<_>>());
    let reply: Value = cmd.query_async(&mut server.client().await).await.expect(command);
    text(&reply)
}

fn text(reply: &Value) -> String {
    match reply {
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join("\n"),
        Value::Map(pairs) => {
            pairs.iter().map(|(key, value)| format!("{} {}", text(key), text(value))).collect::<Vec<_>>().join("\n")
        }
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => text.clone(),
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Int(number) => number.to_string(),
        Value::Okay => "OK".to_owned(),
        other => format!("{other:?}"),
    }
}

impl Cluster {
    async fn slot(&self, key: &str) -> u16 {
        let alive = self.servers.iter().find(|server| server.is_running()).expect("a server is alive");
        ask(alive, &format!("CLUSTER KEYSLOT {key}")).await.parse().expect("a number")
    }
}

fn contains(range: &str, slot: u16) -> bool {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last)) if (first..=last).contains(&slot))
}

/// The cluster on which the tests of this process run once more, if they do. It is emptied first.
pub async fn once_more_on() -> Option<String> {
    let url = std::env::var(ONCE_MORE_ON).ok()?;
    let servers: Vec<_> =
        url.trim_start_matches("redis+cluster://").split(',').map(|place| format!("redis://{place}")).collect();
    let flushed = tokio::task::spawn_blocking(move || {
        let client = redis::cluster::ClusterClient::builder(servers).connection_timeout(AGREE_LIMIT).build()?;
        let mut connection = client.get_connection()?;
        // While slots move, a key may be on neither server when these are emptied.
        for _ in 0..2 {
            redis::cmd("FLUSHALL").exec(&mut connection)?;
        }
        Ok::<_, redis::RedisError>(())
    });
    flushed.await.expect("no panic").expect("the cluster can be emptied");
    Some(url)
}

impl Cluster {
    /// Runs the tests of these modules once more, on this cluster.
    pub async fn run_tests(&self, modules: &[&str]) {
        let tests = tokio::process::Command::new(std::env::current_exe().expect("the tests are a program"))
            .args(modules)
            .args(["--test-threads", "1"])
            .env(ONCE_MORE_ON, self.url())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let output = tests.expect("the tests start").wait_with_output().await.expect("the tests end");
        let [said, complained] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success() && !said.contains(" 0 passed"), "{said}\n{complained}");
        println!("{said}");
    }

    /// Runs something while the slot of a key moves from one primary to the next, again and again. The last move is
    /// completed.
    pub async fn while_moving(&self, key: &str, work: impl Future<Output = ()>) {
        let is_done = Cell::new(false);
        let work = async {
            work.await;
            is_done.set(true);
        };
        let mover = async {
            while !is_done.get() {
                self.move_slot(key).await;
                sleep(POLL).await;
            }
        };
        tokio::join!(work, mover);
    }
}
