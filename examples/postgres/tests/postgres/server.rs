//! A PostgreSQL for each test: on a free port of 127.0.0.1, in a temporary folder.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tempfile::TempDir;
use testkit::http::LIMIT;
use testkit::process;
use testkit::server::free_port;
use tokio::time::sleep;

pub(crate) const POLL: Duration = Duration::from_millis(50);
const ATTEMPT: Duration = Duration::from_secs(10);
/// Debian's packages keep each version's programs in a separate folder.
const DEBIAN: &str = "/usr/lib/postgresql";

/// A running server; dropping it ends it.
pub(crate) struct Postgres {
    process: Child,
    url: String,
    db: PgPool,
    _folder: TempDir,
}

impl Postgres {
    pub(crate) async fn start() -> Postgres {
        let folder = tempfile::tempdir().unwrap();
        let account = Account::of_the_server();
        account.owns(folder.path());
        let data = folder.path().join("data");
        let made = account
            .program("initdb")
            .args(["--username=shop", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--pgdata"])
            .arg(&data)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("initdb does not start: {error}; ./scripts/test installs PostgreSQL"));
        assert!(made.status.success(), "{made:?}");

        let port = free_port().to_string();
        let log = folder.path().join("log");
        let mut process = account
            .program("postgres")
            .args(["-F", "-h", "127.0.0.1", "-p", &port, "-c", "unix_socket_directories=", "-D"])
            .arg(&data)
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let url = format!("postgres://shop@127.0.0.1:{port}/postgres");
        let begun = Instant::now();
        let db = loop {
            match PgPoolOptions::new().acquire_timeout(ATTEMPT).connect(&url).await {
                Ok(db) => break db,
                Err(error) => {
                    let ended = process.try_wait().unwrap().is_some();
                    if ended || begun.elapsed() > LIMIT {
                        let _ = process.kill();
                        panic!("PostgreSQL is not there: {error}\n{}", fs::read_to_string(&log).unwrap());
                    }
                }
            }
            sleep(POLL).await;
        };
        Postgres { process, url, db, _folder: folder }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The number that a query returns.
    pub(crate) async fn number(&self, sql: &'static str) -> i32 {
        sqlx::query_scalar(sql).fetch_one(&self.db).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Waits until a slow commit is under way.
    pub(crate) async fn commit_begins(&self) {
        let begun = Instant::now();
        while self.number("SELECT count(*)::int4 FROM pg_stat_activity WHERE wait_event = 'PgSleep'").await == 0 {
            assert!(begun.elapsed() < LIMIT, "no commit begins");
            sleep(POLL).await;
        }
    }

    /// Runs statements.
    pub(crate) async fn execute(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&self.db).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGINT ends the server and its processes at once and cleanly.
        process::end(&mut self.process, "INT");
    }
}

/// The account that runs the server. It refuses to run as root, so for root this is `postgres`, an account of the
/// packages.
struct Account {
    ids: Option<(u32, u32)>,
}

impl Account {
    fn of_the_server() -> Account {
        let id = |args: &[&str]| {
            let output = Command::new("id").args(args).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            text.trim().parse().unwrap_or_else(|_| panic!("`id {args:?}` has no number: {output:?}"))
        };
        let root = id(&["-u"]) == 0;
        Account { ids: root.then(|| (id(&["-u", "postgres"]), id(&["-g", "postgres"]))) }
    }

    fn owns(&self, folder: &Path) {
        if let Some((user, group)) = self.ids {
            chown(folder, Some(user), Some(group)).unwrap();
        }
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(newest_programs().join(name));
        if let Some((user, group)) = self.ids {
            command.uid(user).gid(group);
        }
        // That account may not be able to enter the test's folder.
        command.current_dir("/");
        command
    }
}

/// The folder of the programs; with the empty path `PATH` is searched.
fn newest_programs() -> PathBuf {
    let versions = fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    // A folder with the client only has no server.
    let with_server = versions.filter(|version| version.path().join("bin/postgres").exists());
    let newest =
        with_server.max_by_key(|version| version.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    newest.map(|version| version.path().join("bin")).unwrap_or_default()
}
