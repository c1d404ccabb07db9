//! Host names for the tests: runs a test in a process of its own, in a mount namespace with its own hosts file.
//!
//! That needs root, or a system that lets every user create namespaces. If neither is available, the test fails.

use std::any::type_name;
use std::fs::{self, OpenOptions};
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

/// The name whose addresses a test chooses.
pub const NAME: &str = "cache.test";
/// The environment variable with the path of the hosts file, for the process in the namespace.
const VARIABLE: &str = "CACHE_ASIDE_TEST_HOSTS";
const LIMIT: Duration = Duration::from_secs(120);
const SIZE: usize = 512;

/// The hosts file of this process.
#[derive(Debug)]
pub struct Hosts(PathBuf);

impl Hosts {
    /// Gives the name these addresses, in this order.
    pub fn resolve_to(&self, addresses: &[Ipv4Addr]) {
        let lines: String = addresses.iter().map(|address| format!("{address} {NAME}\n")).collect();
        // One write that always has the same length, so that nobody reads half a file.
        let text = format!("{:\n<SIZE$}", format!("127.0.0.1 localhost\n{lines}"));
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&self.0).unwrap();
        file.write_all_at(text.as_bytes(), 0).unwrap();
    }
}

/// Runs a test in which [`NAME`] has the addresses that the test gives it. A test calls this with a closure, and does
/// nothing else.
pub fn with_hosts<F: AsyncFnOnce(Hosts)>(test: F) {
    if let Some(path) = std::env::var_os(VARIABLE) {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        let test = async { tokio::time::timeout(LIMIT, test(Hosts(path.into()))).await };
        return runtime.block_on(test).expect("the test ends in time");
    }
    // The closure's type is named `server::names::the_test::{{closure}}`.
    let name = type_name::<F>().split_once("::").unwrap().1.trim_end_matches("::{{closure}}");
    let output = in_namespace(name);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    print!("{stdout}{stderr}");
    assert!(!stderr.contains("unshare failed"), "a mount namespace needs root, or user namespaces: {stderr}");
    assert!(output.status.success() && stdout.contains("1 passed"), "{name} failed in its mount namespace");
}

fn in_namespace(test: &str) -> Output {
    const SCRIPT: &str = r#"
        mount --bind "$1" /etc/hosts || exit
        test ! -e /etc/nsswitch.conf || mount --bind "$2" /etc/nsswitch.conf || exit
        shift 2
        exec "$@"
    "#;
    let dir = tempfile::tempdir().unwrap();
    let (hosts, sources) = (dir.path().join("hosts"), dir.path().join("nsswitch.conf"));
    Hosts(hosts.clone()).resolve_to(&[]);
    fs::write(&sources, "hosts: files\n").unwrap();
    // Root may mount. Other users may mount in a user namespace, if the system lets them create one.
    let is_root = unshare(&["--mount"]).arg("true").output().is_ok_and(|tried| tried.status.success());
    let mut command = unshare(if is_root { &["--mount"] } else { &["--mount", "--map-root-user"] });
    command.args(["sh", "-c", SCRIPT, "sh"]).args([&hosts, &sources]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(VARIABLE, &hosts);
    command.output().expect("`unshare` is installed: it comes with util-linux")
}

fn unshare(options: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(options);
    command
}
