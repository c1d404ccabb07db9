//! Settings for outages: `on_outage`, `max_bypass_loads`, `breaker_threshold`, `breaker_pause`,
//! `max_pending_invalidations`, `close_timeout`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cache_aside::{Backend, BoxError, Cache, EntryState, Error, OnOutage, Outcome, proof};
use testkit::server::{Flavor, Server};
use tokio::net::TcpListener;

use crate::support::fixture::{
    Gate, Primary, Product, builder, frozen_with_an_old_entry, load_at_gate, loaf, lookup, on_every_backend, products,
    settle, until, until_applied,
};

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn on_outage_fail_returns_an_error_and_does_not_load() {
    on_every_backend(async |backend| {
        let cache = builder(&backend).on_outage(OnOutage::Fail).build().unwrap();
        let primary = Primary::of(loaf(1));
        backend.outage(true);
        let error = cache.get("p-001", primary.loader()).await.unwrap_err();
        assert!(matches!(error, Error::Backend { .. }), "{error:?}");
        assert_eq!(primary.loads(), 0);
        backend.outage(false);
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
    })
    .await;
}

#[tokio::test]
async fn max_bypass_loads_bounds_loads_around_the_cache() {
    const BOUND: usize = 16;
    const GETS: u32 = 10_000;
    on_every_backend(async |backend| {
        let cache = builder(&backend).max_bypass_loads(BOUND).wait_timeout(LIMIT * 6).build().unwrap();
        backend.outage(true);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let gets: Vec<_> = (0..GETS)
            .map(|number| {
                let (running, most) = (running.clone(), most.clone());
                tokio::spawn(cache.lookup(number.to_string(), move |id| async move {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    Ok::<_, BoxError>(Some(Product { id, ..loaf(number) }))
                }))
            })
            .collect();
        for (number, get) in (0..GETS).zip(gets) {
            let lookup = get.await.unwrap().unwrap();
            assert_eq!((lookup.outcome, lookup.value.unwrap().stock), (Outcome::Bypassed, number));
        }
        assert_eq!(most.load(Ordering::SeqCst), BOUND);
        assert_eq!(proof::flights(&cache), 0);
    })
    .await;
}

#[tokio::test]
async fn loads_around_the_cache_wait_in_order_and_up_to_wait_timeout() {
    let backend = Backend::connect("memory://").await.unwrap();
    let wait_timeout = Duration::from_millis(300);
    let cache = builder(&backend).max_bypass_loads(1).wait_timeout(wait_timeout).build().unwrap();
    backend.outage(true);
    let (_gate, held) = load_at_gate(&cache, &Primary::of(loaf(1))).await;
    let error = cache.get("p-002", Primary::default().loader()).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    assert!(error.to_string().contains("max_bypass_loads"), "{error}");
    held.abort();

    let cache = builder(&backend).max_bypass_loads(1).build().unwrap();
    let (gate, first) = load_at_gate(&cache, &Primary::of(loaf(1))).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut waiting = Vec::new();
    for number in 0..10 {
        let order = order.clone();
        waiting.push(tokio::spawn(cache.get(number.to_string(), move |_| async move {
            order.lock().unwrap().push(number);
            Ok::<_, BoxError>(None)
        })));
        settle().await;
    }
    gate.open();
    first.await.unwrap().unwrap();
    for get in waiting {
        get.await.unwrap().unwrap();
    }
    assert_eq!(*order.lock().unwrap(), (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_breaker_opens_when_a_server_does_not_answer() {
    const OPERATION_TIMEOUT: Duration = Duration::from_millis(200);
    let server = Server::start(Flavor::Redis70).await;
    let backend = Backend::builder(&server.url()).operation_timeout(OPERATION_TIMEOUT).breaker_threshold(3);
    let (cache, primary) = (products(&backend.connect().await.unwrap()), Primary::of(loaf(1)));
    cache.get("p-001", primary.loader()).await.unwrap();
    server.freeze();
    let began = Instant::now();
    for _ in 0..3 {
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Bypassed);
    }
    assert!(began.elapsed() >= OPERATION_TIMEOUT * 3, "each waits: {:?}", began.elapsed());
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Bypassed);
    }
    assert!(began.elapsed() < OPERATION_TIMEOUT * 20, "100 reads were held up: {:?}", began.elapsed());
    let error = cache.peek("p-002").await.unwrap_err();
    assert!(error.to_string().contains("left alone"), "{error}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("did not end within") && !cause.contains("p-001"), "{cause}");
    server.thaw();
    until(LIMIT, "it answers again", async || lookup(&cache, primary.loader()).await.unwrap().outcome == Outcome::Hit)
        .await;
}

#[tokio::test]
async fn a_server_that_refuses_commands_does_not_open_the_breaker() {
    let server = Server::start(Flavor::Redis70).await;
    let backend = Backend::builder(&server.url()).breaker_threshold(1).operation_timeout(Duration::from_secs(5));
    let cache = products(&backend.connect().await.unwrap());
    let mut operator = server.client().await;
    let _: () = redis::cmd("ACL").arg(&["SETUSER", "default", "-hmget"]).query_async(&mut operator).await.unwrap();
    for _ in 0..3 {
        let error = cache.peek("p-001").await.unwrap_err();
        assert!(error.to_string().contains("ACL"), "{error}");
        assert!(!cache.invalidate("p-001").await.unwrap());
    }
}

#[tokio::test]
async fn a_server_that_did_not_answer_is_left_alone_for_breaker_pause() {
    for (pause, is_asked_soon) in [(Duration::from_millis(20), true), (Duration::from_secs(3_600), false)] {
        let server = Server::start(Flavor::Redis70).await;
        let backend = Backend::builder(&server.url()).operation_timeout(Duration::from_millis(100));
        let backend = backend.breaker_threshold(1).breaker_pause(pause).connect().await.unwrap();
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        cache.get("p-001", primary.loader()).await.unwrap();
        server.freeze();
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Bypassed);
        server.thaw();
        let is_used = async || lookup(&cache, primary.loader()).await.unwrap().outcome == Outcome::Hit;
        if is_asked_soon {
            until(LIMIT, "it is used again", is_used).await;
        } else {
            settle().await;
            assert!(!is_used().await);
            let error = cache.peek("p-001").await.unwrap_err();
            assert!(error.to_string().contains("left alone"), "{error}");
        }
    }
}

/// An update without an answer must not pass for the answer that closes the breaker.
#[tokio::test]
async fn an_update_that_probes_a_server_which_hangs_up_leaves_the_breaker_open() {
    const PAUSE: Duration = Duration::from_millis(20);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let hangs_up = tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            drop(client);
        }
    });
    let backend = Backend::builder(&url).breaker_threshold(1).breaker_pause(PAUSE).connect_lazy().unwrap();
    let cache = builder(&backend).update_timeout(Duration::from_millis(100)).build().unwrap();
    let left_alone = async || cache.peek("p-001").await.unwrap_err().to_string().contains("left alone");
    until(LIMIT, "the breaker opens", left_alone).await;
    for number in 0..5 {
        tokio::time::sleep(PAUSE).await;
        // Each of another record: after a failed update, its record's next one is an invalidation.
        let probe = cache.update_field(number.to_string(), Product::FIELDS.stock, 2);
        probe.await.unwrap_err();
        assert!(left_alone().await, "after probe {number}");
    }
    hangs_up.abort();
}

/// Callers with deadlines shorter than the backend's still find out that the server doesn't answer.
#[tokio::test]
async fn callers_with_short_timeouts_open_the_breaker_too() {
    let (server, cache, primary) = frozen_with_an_old_entry(Flavor::Redis70).await;
    let hurried = async || tokio::time::timeout(Duration::from_millis(20), cache.get("p-001", primary.loader())).await;
    until(LIMIT, "nobody waits for the server", async || hurried().await.is_ok()).await;
    server.thaw();
    until(LIMIT, "it is used again", async || lookup(&cache, primary.loader()).await.unwrap().outcome == Outcome::Hit)
        .await;
}

/// Records whose stock is their number.
fn shelf(size: u32) -> Primary {
    let primary = Primary::default();
    for number in 0..size {
        primary.put(Product { id: number.to_string(), ..loaf(number) });
    }
    primary
}

#[tokio::test]
async fn beyond_max_pending_invalidations_a_whole_type_is_pending_and_deleted() {
    #[derive(Debug, cache_aside::Cacheable)]
    #[cacheable(namespace = "billing", entity = "product_2")]
    struct Other {
        #[cacheable(id)]
        id: String,
    }

    const RECORDS: u32 = 2_000;
    let servers = [Server::start(Flavor::Redis70).await, Server::start(Flavor::Valkey91).await];
    for url in servers.iter().map(Server::url).chain(["memory://".to_owned()]) {
        let backend = Backend::builder(&url).operation_timeout(Duration::from_secs(5)).max_pending_invalidations(3);
        let backend = backend.connect().await.unwrap();
        let (cache, others, primary) = (products(&backend), Cache::<Other>::new(backend.clone()), shelf(RECORDS));
        for number in 1..RECORDS {
            cache.get(number.to_string(), primary.loader()).await.unwrap();
        }
        let other = |id| async move { Ok::<_, BoxError>(Some(Other { id })) };
        for id in ["1", "2"] {
            others.get(id, other).await.unwrap();
        }
        let (gate, arrived) = (Gate::closed(), shelf(1));
        let held = tokio::spawn(cache.get("0", arrived.gated(&gate)));
        gate.arrival().await;

        backend.outage(true);
        for number in 0..5_u32 {
            primary.put(Product { id: number.to_string(), ..loaf(1000 + number) });
            cache.invalidate(number.to_string()).await.unwrap_err();
        }
        others.invalidate("1").await.unwrap_err();
        assert!(cache.pending().whole_type && cache.pending().keys.is_empty(), "{:?}", cache.pending());
        assert_eq!((others.pending().keys.len(), others.pending().whole_type), (1, false));
        let found = cache.lookup("0", primary.loader()).await.unwrap();
        assert_eq!((found.outcome, found.value.unwrap().stock), (Outcome::Bypassed, 1000));
        backend.outage(false);

        until_applied(&cache).await;
        until(LIMIT, "the other type waits", async || others.pending().is_empty()).await;
        gate.open();
        held.await.unwrap().unwrap();
        for number in (0..5).chain([RECORDS - 1]) {
            let inspection = cache.inspect(number.to_string()).await.unwrap();
            assert_eq!((inspection.state, inspection.lock_ttl), (EntryState::Missing, None), "{inspection}");
        }
        assert_eq!(cache.stats().fenced_fills, 1, "the load that was under way is revoked");
        let kept = others.lookup("2", other).await.unwrap();
        assert_eq!(kept.outcome, Outcome::Hit, "another type's entries stay");
    }
}

#[tokio::test]
async fn close_waits_for_pending_invalidations_up_to_close_timeout() {
    let (server, cache, _primary) = frozen_with_an_old_entry(Flavor::Redis70).await;
    let backend = Backend::builder(&server.url()).close_timeout(Duration::from_millis(300)).connect_lazy().unwrap();
    backend.close().await.unwrap();
    let cache_of_its_own = products(&backend);
    cache_of_its_own.invalidate("p-001").await.unwrap_err();
    let error = backend.close().await.unwrap_err();
    assert!(error.to_string().contains("applying 1 pending"), "{error}");
    assert!(cache.pending().is_empty(), "each backend has its own");
    server.thaw();
    until(LIMIT, "it is applied", async || backend.close().await.is_ok()).await;
    assert!(cache_of_its_own.pending().is_empty());
}
