//! What goes wrong without the guards against takeovers, each in a schedule that is forced.

use cache_aside::proof::{Guard, Phase, Step};
use redis::Value;
use testkit::access::Access;
use testkit::server::Server;

use super::FLAVORS;
use crate::support::fixture::{Primary, connect, loaf};
use crate::support::process::Process;

const KEY: &str = "cache:billing:product:p-001";

/// A server that brings an old entry back. To a user without `INFO` each new connection is to another server.
struct Stage {
    server: Server,
    here: Process,
    primary: Primary,
    old: Option<Value>,
}

impl Stage {
    async fn run(guard: Guard, schedule: impl AsyncFn(Self) -> bool) {
        for flavor in FLAVORS {
            for without in [None, Some(guard)] {
                let server = Server::start(flavor).await;
                let access = Access::documented().without("+info");
                access.grant(&server).await;
                let backend = connect(&access.url(&server.url())).await;
                let here = Process::of(&backend, without, |cache| cache);
                let is_kept = schedule(Self { server, here, primary: Primary::of(loaf(1)), old: None }).await;
                assert_eq!(is_kept, without.is_none(), "{flavor:?} without {without:?}");
            }
        }
    }

    /// Keeps a copy of the entry.
    async fn copy_entry(&mut self) {
        let dumped = redis::cmd("DUMP").arg(KEY).query_async(&mut self.server.client().await).await;
        self.old = Some(dumped.unwrap());
    }

    /// Puts the copy back, as if it had never been deleted, and cuts all connections.
    async fn take_over(&self) {
        let Some(Value::BulkString(old)) = &self.old else { panic!("nothing was copied") };
        let mut operator = self.server.client().await;
        let restore = redis::cmd("RESTORE").arg(KEY).arg(30_000).arg(old).arg("REPLACE").to_owned();
        restore.exec_async(&mut operator).await.unwrap();
        redis::cmd("CLIENT").arg(&["KILL", "USER", "billing-service"]).exec_async(&mut operator).await.unwrap();
    }

    async fn is_fresh(&self) -> bool {
        self.here.get(self.primary.loader()).await.unwrap() == Some(2)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_replay_an_entry_that_comes_back_is_a_hit() {
    Stage::run(Guard::Replay, async |mut stage| {
        stage.here.get(stage.primary.loader()).await.unwrap();
        stage.copy_entry().await;
        stage.primary.put(loaf(2));
        stage.here.cache.invalidate("p-001").await.unwrap();
        stage.take_over().await;
        stage.is_fresh().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_answer_check_a_read_from_before_finds_what_has_come_back() {
    Stage::run(Guard::AnswerCheck, async |mut stage| {
        stage.here.get(stage.primary.loader()).await.unwrap();
        stage.copy_entry().await;
        stage.primary.put(loaf(2));
        stage.here.cache.invalidate("p-001").await.unwrap();
        let read = stage.here.hold(Step::Read, Phase::Before);
        let get = stage.here.get(stage.primary.loader());
        read.arrival().await;
        let replay = stage.here.hold(Step::Invalidate, Phase::Before);
        stage.take_over().await;
        replay.arrival().await;
        read.open();
        let found = get.await.unwrap();
        replay.open();
        found == Some(2)
    })
    .await;
}
