//! What goes wrong without the guards against takeovers, each in a schedule that is forced.

use std::time::Duration;

use cache_aside::proof::{Guard, Phase, Step};
use cache_aside::{Backend, defaults};
use testkit::proxy::Proxy;
use testkit::server::{Flavor, Server};

use super::FLAVORS;
use crate::support::fixture::{Primary, loaf};
use crate::support::process::Process;

const KEY: &str = "cache:billing:product:p-001";

/// Two servers behind one address, of which the second takes the place of the first with an older state.
struct Stage {
    servers: [Server; 2],
    proxy: Proxy,
    here: Process,
    primary: Primary,
    old: Vec<u8>,
}

impl Stage {
    async fn run(guard: Guard, schedule: impl AsyncFn(&mut Self) -> bool) {
        for flavor in FLAVORS {
            for without in [None, Some(guard)] {
                let mut stage = Self::start(flavor, defaults::REPLAY_WINDOW, without).await;
                assert_eq!(schedule(&mut stage).await, without.is_none(), "{flavor:?} without {without:?}");
            }
        }
    }

    async fn start(flavor: Flavor, window: Duration, without: Option<Guard>) -> Self {
        let servers = [Server::start(flavor).await, Server::start(flavor).await];
        // Else the second would be one that has just started again.
        tokio::time::sleep(Duration::from_secs(4)).await;
        let proxy = Proxy::to(servers[0].port()).await;
        let backend = Backend::builder(&proxy.url()).operation_timeout(Duration::from_secs(5)).replay_window(window);
        let here = Process::of(&backend.connect().await.unwrap(), without, |cache| cache);
        Self { servers, proxy, here, primary: Primary::of(loaf(1)), old: Vec::new() }
    }

    /// Loads the record, which the second server has too; then changes and invalidates it.
    async fn overwrite(&mut self) {
        self.here.get(self.primary.loader()).await.unwrap();
        self.old = redis::cmd("DUMP").arg(KEY).query_async(&mut self.servers[0].client().await).await.unwrap();
        self.primary.put(loaf(2));
        self.here.cache.invalidate("p-001").await.unwrap();
    }

    async fn take_over(&self) {
        let restore = redis::cmd("RESTORE").arg(KEY).arg(30_000).arg(&self.old[..]).to_owned();
        restore.exec_async(&mut self.servers[1].client().await).await.unwrap();
        self.proxy.move_to(self.servers[1].port());
        self.proxy.cut();
    }

    async fn is_fresh(&self) -> bool {
        self.here.get(self.primary.loader()).await.unwrap() == Some(2)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_replay_an_entry_that_comes_back_is_a_hit() {
    Stage::run(Guard::Replay, async |stage| {
        stage.overwrite().await;
        stage.take_over().await;
        stage.is_fresh().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_answer_check_a_read_from_before_finds_what_has_come_back() {
    Stage::run(Guard::AnswerCheck, async |stage| {
        stage.overwrite().await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_replay_window_an_entry_that_comes_back_is_a_hit() {
    let mut stage = Stage::start(Flavor::Redis70, Duration::ZERO, None).await;
    stage.overwrite().await;
    stage.take_over().await;
    assert!(!stage.is_fresh().await);
}
