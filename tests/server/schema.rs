//! Two releases of one struct at work on one Redis, as while a service is rolled out: what `docs/schema.md` says of each
//! change. A process is a cache on a connection of its own.

use std::fmt::Debug;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use cache_aside::{BoxError, Cache, Cacheable, EntryState, Field};
use testkit::server::{Flavor, Server};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
use tokio::task::JoinHandle;

use crate::fixture::{Gate, connect};

/// The row in the primary, with the columns of all releases.
#[derive(Debug, Clone, Copy)]
struct Row {
    stock: u32,
    color: &'static str,
}

const BEFORE: Row = Row { stock: 42, color: "brown" };
const AFTER: Row = Row { stock: 41, color: "golden" };

/// A struct as one release has it, with what each field is made of.
macro_rules! release {
    ($(#[$of_struct:meta])* $name:ident { $($(#[$of_field:meta])* $field:ident: $ty:ty = $from:expr),* $(,)? }) => {
        #[derive(Debug, Clone, PartialEq, Cacheable)]
        #[cacheable(namespace = "billing", entity = "product")]
        $(#[$of_struct])*
        struct $name {
            #[cacheable(id)]
            id: String,
            $($(#[$of_field])* $field: $ty,)*
        }

        impl From<Row> for $name {
            fn from(row: Row) -> Self {
                Self { id: "p-001".to_owned(), $($field: $from(row),)* }
            }
        }
    };
}

fn stock(row: Row) -> u32 {
    row.stock
}

fn color(row: Row) -> String {
    row.color.to_owned()
}

release!(Plain { stock: u32 = stock });
release!(WithColor { stock: u32 = stock, color: String = color });
release!(WithDefaultColor {
    stock: u32 = stock,
    #[cacheable(default)]
    color: String = color,
});

release!(RenamedBarely { amount: u32 = stock });
release!(Renamed {
    #[cacheable(alias = "stock")]
    amount: u32 = stock,
});
release!(RenamePrepared {
    #[cacheable(rename = "stock", alias = "amount")]
    amount: u32 = stock,
});
release!(DefaultStock {
    #[cacheable(default)]
    stock: u32 = stock,
});
release!(BothNames { stock: u32 = stock, amount: u32 = stock });

release!(Retyped { stock: bool = |row| stock(row) > 0 });
release!(
    #[cacheable(also_invalidates = [1])]
    BeforeVersion1 { stock: u32 = stock }
);
release!(
    #[cacheable(version = 1, also_invalidates = [none])]
    Version1 { stock: bool = |row| stock(row) > 0 }
);
release!(
    #[cacheable(version = 2, also_invalidates = [3])]
    Version2 { stock: u32 = stock }
);
release!(
    #[cacheable(version = 3, also_invalidates = [2])]
    Version3 { amount: u32 = stock }
);

trait Release: Cacheable<Id = String> + From<Row> + Clone + PartialEq + Debug {}

impl<T: Cacheable<Id = String> + From<Row> + Clone + PartialEq + Debug> Release for T {}

/// A process of one release.
struct Process<T: Cacheable> {
    cache: Cache<T>,
    row: Arc<Mutex<Row>>,
}

impl<T: Release> Process<T> {
    async fn on(url: &str, row: &Arc<Mutex<Row>>) -> Self {
        Self { cache: Cache::new(connect(url).await), row: row.clone() }
    }

    /// The row as this release has it.
    fn current(&self) -> T {
        T::from(*self.row.lock().unwrap())
    }

    fn commit(&self, row: Row) {
        *self.row.lock().unwrap() = row;
    }

    async fn read(&self) -> T {
        let current = self.current();
        let found = self.cache.get("p-001", |_id| async { Ok::<_, BoxError>(Some(current)) }).await;
        T::clone(&found.unwrap().unwrap())
    }

    /// Starts a read whose loader has seen the row, and is held at the gate.
    async fn read_at_gate(&self) -> (Gate, JoinHandle<T>) {
        let gate = Gate::closed();
        let (cache, current, passed) = (self.cache.clone(), self.current(), gate.clone());
        let read = tokio::spawn(async move {
            let load = |_id| async move {
                passed.pass().await;
                Ok::<_, BoxError>(Some(current))
            };
            T::clone(&cache.get("p-001", load).await.unwrap().unwrap())
        });
        gate.arrival().await;
        (gate, read)
    }

    /// Leaves an entry as this release writes it.
    async fn fill(&self) {
        self.cache.invalidate("p-001").await.unwrap();
        self.read().await;
    }

    async fn invalidate(&self) -> bool {
        self.cache.invalidate("p-001").await.unwrap()
    }

    async fn update<V>(&self, field: Field<T, V>, value: V) -> bool {
        self.cache.update_field("p-001", field, value).await.unwrap()
    }

    async fn state(&self) -> EntryState {
        self.cache.inspect("p-001").await.unwrap().state
    }
}

/// Runs a test with a process of each release, on the embedded backend and on one server of each flavor.
async fn with_processes<Old: Release, New: Release>(test: impl AsyncFn(Process<Old>, Process<New>)) {
    let (memory, row) = (connect("memory://").await, Arc::new(Mutex::new(BEFORE)));
    let old = Process { cache: Cache::new(memory.clone()), row: row.clone() };
    test(old, Process { cache: Cache::new(memory), row }).await;
    for flavor in Flavor::ALL {
        println!("on {flavor:?}");
        let (server, row) = (Server::start(flavor).await, Arc::new(Mutex::new(BEFORE)));
        test(Process::on(&server.url(), &row).await, Process::on(&server.url(), &row).await).await;
    }
}

/// How often each process loads while they read in turns, ten times each.
async fn loads_in_turns<Old: Release, New: Release>(old: &Process<Old>, new: &Process<New>) -> (u64, u64) {
    old.cache.reset_stats();
    new.cache.reset_stats();
    for _ in 0..10 {
        old.read().await;
        new.read().await;
    }
    (old.cache.stats().loads, new.cache.stats().loads)
}

#[tokio::test]
async fn a_field_added_with_a_default_is_the_default_in_old_entries() {
    with_processes::<Plain, WithDefaultColor>(async |old, new| {
        old.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        assert_eq!(new.read().await, WithDefaultColor { color: String::new(), ..new.current() });
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
        // Each updates what it knows, and leaves the rest.
        assert!(old.update(Plain::FIELDS.stock, 1).await);
        assert!(new.update(WithDefaultColor::FIELDS.color, "black".to_owned()).await);
        assert_eq!(old.read().await.stock, 1);
        assert_eq!(new.read().await, WithDefaultColor { stock: 1, color: "black".to_owned(), ..new.current() });
    })
    .await;
}

#[tokio::test]
async fn a_field_added_without_a_default_costs_one_load_for_each_fill_by_an_old_process() {
    with_processes::<Plain, WithColor>(async |old, new| {
        for _ in 0..2 {
            old.fill().await;
            assert_eq!(loads_in_turns(&old, &new).await, (0, 1));
            assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
        }
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        old.fill().await;
        assert!(!new.update(WithColor::FIELDS.stock, 1).await, "no whole record, to the new process");
        assert_eq!(old.state().await, EntryState::Missing);
    })
    .await;
}

#[tokio::test]
async fn a_removed_field_costs_one_load_for_each_fill_by_a_new_process() {
    with_processes::<WithColor, Plain>(async |old, new| {
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (1, 0));
        assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
    })
    .await;
}

#[tokio::test]
async fn a_field_that_had_a_default_is_removed_without_a_load() {
    with_processes::<WithDefaultColor, Plain>(async |old, new| {
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        old.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
    })
    .await;
}

#[tokio::test]
async fn a_field_renamed_without_an_alias_is_loaded_at_every_turn() {
    with_processes::<Plain, RenamedBarely>(async |old, new| {
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (10, 10));
        assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
    })
    .await;
}

#[tokio::test]
async fn a_field_renamed_with_an_alias_costs_one_load_for_each_fill_by_a_new_process() {
    with_processes::<Plain, Renamed>(async |old, new| {
        old.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (1, 0));
        assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
    })
    .await;
}

#[tokio::test]
async fn a_field_renamed_in_two_releases_costs_no_load() {
    with_processes::<Plain, RenamePrepared>(async |old, new| {
        old.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        assert!(new.update(RenamePrepared::FIELDS.amount, 1).await);
        assert_eq!(old.read().await.stock, 1);
    })
    .await;
    with_processes::<RenamePrepared, Renamed>(async |old, new| {
        old.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        // What the other has written is deleted, and loaded anew.
        new.commit(AFTER);
        assert!(!old.update(RenamePrepared::FIELDS.amount, AFTER.stock).await);
        assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
        new.commit(BEFORE);
        assert!(!new.update(Renamed::FIELDS.amount, BEFORE.stock).await);
        assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
    })
    .await;
}

#[tokio::test]
async fn an_update_that_meets_an_alias_deletes_the_entry() {
    with_processes::<Plain, Renamed>(async |old, new| {
        old.fill().await;
        new.commit(AFTER);
        assert!(!new.update(Renamed::FIELDS.amount, AFTER.stock).await);
        assert_eq!(old.state().await, EntryState::Missing);
        assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
        assert_eq!(new.cache.modify("p-001", |product| product.amount -= 1).await.unwrap(), None);
        assert_eq!(new.state().await, EntryState::Missing);
        assert_eq!(new.cache.stats().updates, 0);

        new.fill().await;
        assert!(new.update(Renamed::FIELDS.amount, 1).await, "under its own name");
        assert_eq!(new.cache.modify("p-001", |product| product.amount += 1).await.unwrap().unwrap().amount, 2);
        assert!(!old.update(Plain::FIELDS.stock, 1).await, "no whole record, to the old process");
        assert_eq!(new.state().await, EntryState::Missing);
    })
    .await;
}

#[tokio::test]
async fn an_update_that_meets_both_names_deletes_the_entry() {
    with_processes::<BothNames, Renamed>(async |old, new| {
        old.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        assert!(!new.update(Renamed::FIELDS.amount, 1).await);
        assert_eq!(old.state().await, EntryState::Missing);
    })
    .await;
}

/// Why such a field is renamed in two releases.
#[tokio::test]
async fn an_old_field_with_a_default_hides_its_new_name() {
    with_processes::<DefaultStock, Renamed>(async |old, new| {
        new.fill().await;
        assert_eq!(old.read().await.stock, 0);
        // Its update goes beside the new name, which wins.
        assert!(old.update(DefaultStock::FIELDS.stock, 1).await);
        assert_eq!((old.read().await.stock, new.read().await.amount), (1, BEFORE.stock));
    })
    .await;
    with_processes::<DefaultStock, RenamePrepared>(async |old, new| {
        new.fill().await;
        assert_eq!(old.read().await, old.current());
    })
    .await;
}

#[tokio::test]
async fn a_field_of_another_type_is_loaded_at_every_turn() {
    with_processes::<Plain, Retyped>(async |old, new| {
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (10, 10));
        assert_eq!(old.cache.stats().decode_errors, 10);
        assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
    })
    .await;
}

/// With the reads of each before, so that both have what they may keep.
async fn an_invalidation_by_either_reaches_both<Old: Release, New: Release>() {
    with_processes::<Old, New>(async |old, new| {
        for row in [AFTER, BEFORE] {
            old.read().await;
            new.read().await;
            old.commit(row);
            assert!(old.invalidate().await);
            assert!(!new.invalidate().await, "nothing is left");
            assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
        }
        for row in [AFTER, BEFORE] {
            new.read().await;
            old.read().await;
            new.commit(row);
            assert!(new.invalidate().await);
            assert!(!old.invalidate().await, "nothing is left");
            assert_eq!((new.read().await, old.read().await), (new.current(), old.current()));
        }
    })
    .await;
}

#[tokio::test]
async fn an_invalidation_reaches_every_shape_under_one_key() {
    an_invalidation_by_either_reaches_both::<Plain, WithColor>().await;
    an_invalidation_by_either_reaches_both::<Plain, Renamed>().await;
    an_invalidation_by_either_reaches_both::<Plain, Retyped>().await;
}

#[tokio::test]
async fn an_invalidation_reaches_the_versions_that_are_listed() {
    an_invalidation_by_either_reaches_both::<Version2, Version3>().await;
    an_invalidation_by_either_reaches_both::<BeforeVersion1, Version1>().await;
}

#[tokio::test]
async fn versions_load_once_each() {
    with_processes::<BeforeVersion1, Version1>(async |old, new| {
        assert_eq!(loads_in_turns(&old, &new).await, (1, 1));
        assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
    })
    .await;
}

#[tokio::test]
async fn every_way_to_invalidate_reaches_the_versions_that_are_listed() {
    with_processes::<Version2, Version3>(async |old, new| {
        old.read().await;
        assert!(new.invalidate().await, "only the older version's entry was there");
        assert_eq!(new.cache.stats().invalidations, 1);

        old.read().await;
        let results = new.cache.invalidate_many(["p-001", "", "p-002"]).await;
        assert!(matches!(results.as_slice(), [Ok(true), Err(_), Ok(false)]), "{results:?}");
        assert_eq!(old.state().await, EntryState::Missing);

        old.read().await;
        new.commit(AFTER);
        let current = new.current();
        new.cache.refresh("p-001", |_id| async { Ok::<_, BoxError>(Some(current)) }).await.unwrap();
        assert_eq!(old.read().await, old.current());
    })
    .await;
}

#[tokio::test]
async fn an_update_deletes_the_entries_of_the_versions_that_are_listed() {
    with_processes::<Version2, Version3>(async |old, new| {
        old.read().await;
        new.read().await;
        new.commit(AFTER);
        assert!(new.update(Version3::FIELDS.amount, AFTER.stock).await);
        assert_eq!((old.state().await, new.state().await), (EntryState::Missing, EntryState::Record));
        assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));

        new.commit(BEFORE);
        let modified = old.cache.modify("p-001", |product| product.stock = BEFORE.stock).await.unwrap();
        assert_eq!(modified.as_deref(), Some(&old.current()));
        assert_eq!((old.state().await, new.state().await), (EntryState::Record, EntryState::Missing));

        // Nothing of its own to update, and all the same.
        assert!(!new.update(Version3::FIELDS.amount, BEFORE.stock).await);
        assert_eq!(old.state().await, EntryState::Missing);
    })
    .await;
}

#[tokio::test]
async fn a_load_under_a_version_that_is_listed_is_fenced() {
    with_processes::<Version2, Version3>(async |old, new| {
        let (gate, early) = old.read_at_gate().await;
        new.commit(AFTER);
        assert!(!new.invalidate().await);
        assert_eq!(old.cache.inspect("p-001").await.unwrap().lock_ttl, None, "the lease is revoked");
        gate.open();
        assert_eq!(early.await.unwrap(), Version2::from(BEFORE));
        assert_eq!((old.cache.stats().fenced_fills, old.state().await), (1, EntryState::Missing));
        assert_eq!(old.read().await, old.current());

        old.invalidate().await;
        let (gate, early) = old.read_at_gate().await;
        new.commit(BEFORE);
        assert!(!new.update(Version3::FIELDS.amount, BEFORE.stock).await);
        gate.open();
        assert_eq!(early.await.unwrap(), Version2::from(AFTER));
        assert_eq!((old.cache.stats().fenced_fills, old.state().await), (2, EntryState::Missing));
    })
    .await;
}

/// Why a release that lists the coming version goes first.
#[tokio::test]
async fn a_version_that_is_not_listed_is_not_reached() {
    with_processes::<Plain, Version1>(async |old, new| {
        old.read().await;
        new.read().await;
        old.commit(Row { stock: 0, ..AFTER });
        old.invalidate().await;
        assert_eq!(new.read().await, Version1::from(BEFORE));
        new.invalidate().await;
        assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
    })
    .await;
}

/// A server that lets a user at the keys of one version alone.
#[tokio::test]
async fn a_key_that_fails_keeps_no_other_from_being_invalidated() {
    for flavor in Flavor::ALL {
        println!("on {flavor:?}");
        let (server, row) = (Server::start(flavor).await, Arc::new(Mutex::new(BEFORE)));
        let mut admin = server.client().await;
        let (old, new): (Process<Version2>, Process<Version3>) =
            (Process::on(&server.url(), &row).await, Process::on(&server.url(), &row).await);
        for (refused, allowed) in [("@2:", "~*@3:*"), ("@3:", "~*@2:*")] {
            let user = ["SETUSER", "limited", "on", "resetkeys", "resetpass", ">secret", "+@all", allowed];
            redis::cmd("ACL").arg(&user).exec_async(&mut admin).await.unwrap();
            let limited = format!("redis://limited:secret@127.0.0.1:{}", server.port());
            let limited: Process<Version3> = Process::on(&limited, &row).await;
            let remain = || async { (old.state().await, new.state().await) };
            let expected = match refused {
                "@2:" => (EntryState::Record, EntryState::Missing),
                _ => (EntryState::Missing, EntryState::Record),
            };

            old.fill().await;
            new.read().await;
            let error = limited.cache.invalidate("p-001").await.unwrap_err().to_string();
            assert!(error.contains(&format!("cache:billing:product{refused}p-001")), "{error}");
            assert_eq!(remain().await, expected);

            old.fill().await;
            new.read().await;
            let update = limited.cache.update_field("p-001", Version3::FIELDS.amount, 1).await;
            let error = update.unwrap_err().to_string();
            assert!(error.contains(&format!("cache:billing:product{refused}p-001")), "{error}");
            assert_eq!(remain().await.0, expected.0);
        }
    }
}

const OLD_PROCESS_URL: &str = "CACHE_ASIDE_OLD_PROCESS_URL";

/// The test's own program, run as an old process: for each line that it is told it answers with one.
struct OldProcess {
    _process: Child,
    told: ChildStdin,
    answers: Lines<BufReader<ChildStderr>>,
}

impl OldProcess {
    fn start(url: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "schema::is_an_old_process", "--ignored", "--nocapture"])
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

    /// Its read of a row with this stock: what it got, and how often it has loaded so far.
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
