//! The same with two programs, an old one and a new one.

use std::process::Stdio;
use std::sync::{Arc, Mutex};

use testkit::server::{Flavor, Server};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};

use super::{BEFORE, Plain, Process, Renamed, Row};

const OLD_PROCESS_URL: &str = "CACHE_ASIDE_OLD_PROCESS_URL";

/// The test's own program, run as an old process: it answers each line with one line.
struct OldProcess {
    _process: Child,
    told: ChildStdin,
    answers: Lines<BufReader<ChildStderr>>,
}

impl OldProcess {
    fn start(url: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "protocol::schema::programs::is_an_old_process", "--ignored", "--nocapture"])
            .env(OLD_PROCESS_URL, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (told, answers) = (process.stdin.take().unwrap(), process.stderr.take().unwrap());
        Self { _process: process, told, answers: BufReader::new(answers).lines() }
    }

    async fn tell(&mut self, line: &str) -> String {
        self.told.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        self.answers.next_line().await.unwrap().expect("an answer")
    }

    /// Reads a row with this stock: the result, and the number of its loads so far.
    async fn read(&mut self, stock: u32) -> String {
        self.tell(&stock.to_string()).await
    }
}

#[tokio::test]
#[ignore = "a part of the test below, which runs it"]
async fn is_an_old_process() {
    let Ok(url) = std::env::var(OLD_PROCESS_URL) else { return };
    let process: Process<Plain> = Process::on(&url, &Arc::new(Mutex::new(BEFORE))).await;
    let mut told = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = told.next_line().await.unwrap() {
        if let Ok(stock) = line.parse() {
            process.commit(Row { stock, ..BEFORE });
            let found = process.read().await.stock;
            eprintln!("{found}, {} loads", process.cache.stats().loads);
        } else {
            assert_eq!(line, "invalidate");
            eprintln!("{}", process.invalidate().await);
        }
    }
}

#[tokio::test]
async fn two_programs_share_a_server_while_a_field_is_renamed() {
    for flavor in Flavor::ALL {
        println!("on {flavor:?}");
        let server = Server::start(flavor).await;
        let mut old = OldProcess::start(&server.url());
        let new: Process<Renamed> = Process::on(&server.url(), &Arc::new(Mutex::new(BEFORE))).await;
        let commit = |stock| new.commit(Row { stock, ..BEFORE });

        assert_eq!(old.read(42).await, "42, 1 loads");
        assert_eq!((new.read().await.amount, new.cache.stats().loads), (42, 0));
        commit(41);
        assert!(new.invalidate().await);
        assert_eq!(old.read(41).await, "41, 2 loads");
        commit(40);
        assert_eq!(old.tell("invalidate").await, "true");
        assert_eq!((new.read().await.amount, new.cache.stats().loads), (40, 1));
        for _ in 0..3 {
            assert_eq!(old.read(40).await, "40, 3 loads");
            assert_eq!((new.read().await.amount, new.cache.stats().loads), (40, 1));
        }
        commit(39);
        assert!(!new.update(Renamed::FIELDS.amount, 39).await);
        assert_eq!(old.read(39).await, "39, 4 loads");
        assert_eq!((new.read().await.amount, new.cache.stats().loads), (39, 1));
    }
}
