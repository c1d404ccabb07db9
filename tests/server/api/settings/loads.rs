//! How long loads and waiting for them may take: `load_timeout`, `wait_timeout`, `wait_poll`, `lock_ttl`.

use std::time::Duration;

use cache_aside::{BoxError, Cache, EntryState, Error, Outcome, defaults};

use super::{Item, backend};
use crate::support::fixture::{
    Gate, Primary, Product, builder, get, loaf, lookup, on_every_backend, on_every_server, until,
};

#[tokio::test]
async fn a_loader_that_hangs_is_dropped_after_the_load_timeout() {
    on_every_backend(async |backend| {
        let cache = builder(&backend).load_timeout(Duration::from_millis(100)).build().unwrap();
        let (primary, gate) = (Primary::of(loaf(1)), Gate::closed());
        let joined: Vec<_> = (0..10).map(|_| tokio::spawn(get(&cache, primary.gated(&gate)))).collect();
        for get in joined {
            let error = get.await.unwrap().unwrap_err();
            assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
            assert!(error.to_string().contains("cache:billing:product:p-001"), "{error}");
        }
        assert_eq!(primary.loads(), 1);
        assert_eq!(cache.inspect("p-001").await.unwrap().lock_ttl, None);
        assert!(cache.get("p-001", primary.loader()).await.unwrap().is_some());
    })
    .await;
}

#[tokio::test]
async fn a_batch_loader_that_hangs_is_dropped_after_the_load_timeout() {
    struct Dropped(tokio::sync::mpsc::UnboundedSender<()>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }

    on_every_backend(async |backend| {
        let cache = builder(&backend).load_timeout(Duration::from_millis(100)).build().unwrap();
        let (sender, mut is_dropped) = tokio::sync::mpsc::unbounded_channel();
        let load = move |_| {
            let dropped = Dropped(sender.clone());
            async move {
                let _dropped = dropped;
                std::future::pending::<Result<Vec<Product>, BoxError>>().await
            }
        };
        let answers = cache.get_many(["a", "b"], load).await;
        assert!(answers.iter().all(|answer| matches!(answer, Err(Error::Timeout { .. }))), "{answers:?}");
        is_dropped.recv().await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_load_timeout_runs_on_the_paused_clock() {
    let cache: Cache<Item> = Cache::new(backend().await);
    let began = tokio::time::Instant::now();
    let error = cache.get(1, |_| std::future::pending::<Result<Option<Item>, BoxError>>()).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { limit: defaults::LOAD_TIMEOUT, .. }), "{error:?}");
    assert!(began.elapsed() >= defaults::LOAD_TIMEOUT && began.elapsed() < defaults::LOAD_TIMEOUT * 2);
}

#[tokio::test]
async fn after_wait_timeout_a_process_loads_once_around_the_cache() {
    on_every_server(async |server, backend| {
        let cache = builder(&backend).wait_timeout(Duration::from_millis(200)).build().unwrap();
        let primary = Primary::of(loaf(1)).with_latency(Duration::from_millis(50));
        let mut stuck = server.client().await;
        let lock = "{cache:billing:product:p-001}:lock";
        redis::cmd("SET").arg(&[lock, "a stuck token", "PX", "60000"]).exec_async(&mut stuck).await.unwrap();
        let gets: Vec<_> = (0..50).map(|_| tokio::spawn(lookup(&cache, primary.loader()))).collect();
        for get in gets {
            assert_eq!(get.await.unwrap().unwrap().outcome, Outcome::Bypassed);
        }
        assert_eq!((primary.loads(), cache.stats().bypasses), (1, 50));
        assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Missing, "it fills nothing");
    })
    .await;
}

#[tokio::test]
async fn a_process_that_waits_polls_at_least_every_wait_poll() {
    on_every_server(async |server, backend| {
        let mut stuck = server.client().await;
        let lock = "{cache:billing:product:p-001}:lock";
        redis::cmd("SET").arg(&[lock, "a stuck token", "PX", "60000"]).exec_async(&mut stuck).await.unwrap();
        let mut polls = Vec::new();
        for wait_poll in [Duration::from_millis(5), Duration::from_millis(500)] {
            let cache = builder(&backend).wait_poll(wait_poll).wait_timeout(Duration::from_secs(1)).build().unwrap();
            redis::cmd("CONFIG").arg("RESETSTAT").exec_async(&mut stuck).await.unwrap();
            let found = lookup(&cache, Primary::of(loaf(1)).loader()).await.unwrap();
            assert_eq!(found.outcome, Outcome::Bypassed);
            // Each poll tries to acquire the lease.
            polls.push(server.calls().await["set"]);
        }
        assert!(polls[0] > polls[1] * 3, "{polls:?}");
    })
    .await;
}

#[tokio::test]
async fn a_lease_is_renewed_while_its_load_runs() {
    on_every_backend(async |backend| {
        let build = || builder(&backend).lock_ttl(Duration::from_secs(4)).build().unwrap();
        let (here, there, primary, gate) = (build(), build(), Primary::of(loaf(1)), Gate::closed());
        let first = tokio::spawn(lookup(&here, primary.gated(&gate)));
        gate.arrival().await;
        let second = tokio::spawn(lookup(&there, primary.loader()));
        // Only a renewal makes what is left of it longer.
        let (mut left, mut renewals) = (None, 0);
        let is_renewed_twice = async || {
            let before = std::mem::replace(&mut left, there.inspect("p-001").await.unwrap().lock_ttl);
            renewals += u32::from(before.is_some() && left > before);
            renewals == 2
        };
        until(Duration::from_secs(20), "the lease is not renewed", is_renewed_twice).await;
        gate.open();
        let (first, second) = (first.await.unwrap().unwrap(), second.await.unwrap().unwrap());
        assert_eq!((first.outcome, second.outcome), (Outcome::Loaded, Outcome::Waited));
        assert_eq!((primary.loads(), here.stats().fenced_fills), (1, 0));
    })
    .await;
}
