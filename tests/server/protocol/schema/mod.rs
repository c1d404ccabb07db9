//! Two releases of one struct on one Redis, as while a service is rolled out: the statements of `docs/schema.md` about
//! each change. A process is a cache with its own connection.

mod fields;
mod parts;
mod programs;
mod variants;
mod versions;

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use cache_aside::{BoxError, Cache, Cacheable, EntryState, Field};
use testkit::server::{Flavor, Server};
use tokio::task::JoinHandle;

use crate::support::fixture::{Gate, connect};

/// The row in the primary, with the columns of all releases.
#[derive(Debug, Clone, Copy)]
struct Row {
    stock: u32,
    color: &'static str,
    status: &'static str,
}

const BEFORE: Row = Row { stock: 42, color: "brown", status: "on_sale" };

const AFTER: Row = Row { stock: 41, color: "golden", status: "on_sale" };

/// A struct of one release, with the columns of its fields.
macro_rules! release {
    ($(#[$of_struct:meta])* $name:ident { $($(#[$of_field:meta])* $field:ident: $ty:ty = $from:expr),* $(,)? }) => {
        #[derive(Debug, Clone, PartialEq, cache_aside::Cacheable)]
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

use release;

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

    /// The row as this release reads it.
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

/// How often each process loads while they read alternately, ten times each.
async fn loads_in_turns<Old: Release, New: Release>(old: &Process<Old>, new: &Process<New>) -> (u64, u64) {
    old.cache.reset_stats();
    new.cache.reset_stats();
    for _ in 0..10 {
        old.read().await;
        new.read().await;
    }
    (old.cache.stats().loads, new.cache.stats().loads)
}
