//! When something fails: the loader, the server, the connection, the address.

use std::pin::pin;
use std::time::{Duration, Instant};

use cache_aside::{Backend, BoxError, Cache, EntryState, Error, Outcome};
use testkit::server::{Flavor, Server, free_port};

use crate::fixture::{
    Gate, Primary, Product, builder, comes_back, get, loaf, lookup, on_every_backend, products, until,
};

#[tokio::test]
async fn a_panicking_loader_is_an_error_and_the_next_get_tries_again() {
    on_every_backend(async |backend| {
        let cache = products(&backend);
        let stock = std::hint::black_box(0_u32);
        let panicking = move |_| async move { Ok::<_, BoxError>(Some(loaf(1 / stock))) };
        let error = cache.get("p-001", panicking).await.unwrap_err();
        assert!(matches!(error, Error::LoadPanicked { .. }), "{error:?}");
        assert!(error.to_string().contains("divide by zero"), "{error}");
        let primary = Primary::of(loaf(1));
        assert!(cache.get("p-001", primary.loader()).await.unwrap().is_some());
        assert_eq!((cache.stats().load_errors, cache.stats().misses), (1, 2));
    })
    .await;
}

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_without_the_cache_and_say_so() {
    on_every_backend(async |backend| {
        let cache = products(&backend);
        let primary = Primary::of(loaf(1)).with_latency(Duration::from_millis(50));
        cache.get("p-001", primary.loader()).await.unwrap();
        primary.put(loaf(2));
        backend.outage(true);
        let gets: Vec<_> = (0..100).map(|_| tokio::spawn(lookup(&cache, primary.loader()))).collect();
        for get in gets {
            let lookup = get.await.unwrap().unwrap();
            assert_eq!((lookup.outcome, lookup.value.as_deref()), (Outcome::Bypassed, Some(&loaf(2))));
        }
        assert!(primary.loads() <= 4, "{} loads: those who came while one ran share the next", primary.loads());
        assert_eq!(cache.stats().bypasses, 100);
        assert!(matches!(cache.peek("p-001").await, Err(Error::Backend { .. })));
        assert!(matches!(cache.invalidate("p-001").await, Err(Error::Backend { .. })));
        assert!(matches!(cache.update_field("p-001", Product::FIELDS.stock, 2).await, Err(Error::Backend { .. })));
        backend.outage(false);
        cache.invalidate("p-001").await.unwrap();
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
    })
    .await;
}

#[tokio::test]
async fn a_loader_that_fails_during_an_outage_is_an_error() {
    let backend = Backend::connect("memory://").await.unwrap();
    let cache = products(&backend);
    backend.outage(true);
    let error = cache.get("p-001", |_| async { Err(std::fmt::Error) }).await.unwrap_err();
    assert!(error.downcast_ref::<std::fmt::Error>().is_some());
    assert_eq!((cache.stats().bypasses, cache.stats().misses), (1, 0));
}

#[tokio::test]
async fn comes_back_when_the_server_does() {
    for flavor in Flavor::ALL {
        let mut server = Server::start(flavor).await;
        let backend = Backend::connect(&server.url()).await.unwrap();
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        cache.get("p-001", primary.loader()).await.unwrap();
        assert!(cache.update_field("p-001", Product::FIELDS.stock, 1).await.unwrap());
        server.kill().await;
        let down = lookup(&cache, primary.loader()).await.unwrap();
        assert_eq!(down.outcome, Outcome::Bypassed);
        let refused = cache.invalidate("p-001").await.unwrap_err();
        assert!(refused.to_string().contains(&server.port().to_string()), "{refused}");
        server.restart().await;
        comes_back(&cache, &primary, Duration::from_secs(5)).await;
        assert!(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());
        assert_eq!(cache.peek("p-001").await.unwrap().as_deref(), Some(&loaf(2)));
    }
}

#[tokio::test]
async fn a_frozen_server_holds_nobody_up_beyond_the_deadlines() {
    let server = Server::start(Flavor::Redis70).await;
    // Each call finds out for itself.
    let backend = Backend::builder(&server.url()).operation_timeout(Duration::from_millis(100)).breaker_threshold(100);
    let backend = backend.connect().await.unwrap();
    let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
    cache.get("p-001", primary.loader()).await.unwrap();
    cache.update_field("p-001", Product::FIELDS.stock, 1).await.unwrap();
    server.freeze();
    let began = Instant::now();
    assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Bypassed);
    // Each of a record of its own: of one whose write has failed, all reads and changes go around the entry.
    assert!(matches!(cache.update_field("p-001", Product::FIELDS.stock, 2).await, Err(Error::Timeout { .. })));
    assert!(matches!(cache.modify("p-002", |_| ()).await, Err(Error::Timeout { .. })));
    assert!(matches!(cache.invalidate("p-003").await, Err(Error::Timeout { .. })));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    server.thaw();
    while cache.invalidate("p-001").await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(10), "not back after {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
    assert!(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());
}

#[test]
fn a_runtime_that_nobody_drives_is_left_behind() {
    const LIMIT: Duration = Duration::from_secs(20);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let primary = Primary::of(loaf(1));
    let (_server, cache) = first.block_on(async {
        let server = Server::start(Flavor::Redis70).await;
        let backend = Backend::builder(&server.url()).operation_timeout(Duration::from_millis(100));
        let cache = products(&backend.connect().await.unwrap());
        lookup(&cache, primary.loader()).await.unwrap();
        // Its command is queued, and the task that is to send it waits for its turn.
        {
            let begun = pin!(cache.invalidate("p-002"));
            assert!(futures_util::poll!(begun).is_pending());
        }
        (server, cache)
    });
    second.block_on(async {
        comes_back(&cache, &primary, LIMIT).await;
        until(LIMIT, "writes don't get through", async || cache.invalidate("p-001").await.is_ok()).await;
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Hit);
    });
}

#[tokio::test]
async fn a_service_starts_while_its_cache_is_down() {
    let mut server = Server::start(Flavor::Valkey91).await;
    server.kill().await;
    let backend = Backend::connect_lazy(&server.url()).unwrap();
    let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
    assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Bypassed);
    server.restart().await;
    comes_back(&cache, &primary, Duration::from_secs(5)).await;
    assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Record);
}

async fn refused(url: &str) -> String {
    let began = Instant::now();
    let error = Backend::connect(url).await.unwrap_err();
    assert!(began.elapsed() < cache_aside::defaults::CONNECT_TIMEOUT * 2, "{:?}", began.elapsed());
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    println!("{text}");
    assert!(!format!("{text} {error:?}").contains("secret"), "{text} {error:?}");
    text
}

#[tokio::test]
async fn a_bad_url_is_refused_without_what_may_be_a_password() {
    let text = refused("redis://127.0.0.1?protocol=resp9;pass=secret").await;
    assert!(text.contains("Invalid protocol version"), "{text}");
    refused("user:secret@127.0.0.1?next=x://y").await;
}

#[tokio::test]
async fn connecting_to_nothing_names_the_address_and_what_to_do() {
    let port = free_port();
    let text = refused(&format!("redis://user:secret@127.0.0.1:{port}")).await;
    assert!(text.contains(&format!("127.0.0.1:{port}")) && text.contains("check that a server runs there"), "{text}");
    let text = refused("unix:///nowhere/redis.sock?pass=secret").await;
    assert!(text.contains("/nowhere/redis.sock"), "{text}");
    let text = refused("redis://no-such-host.invalid:6379").await;
    assert!(text.contains("no-such-host.invalid:6379"), "{text}");
}

#[tokio::test]
async fn connecting_to_a_port_that_never_answers_times_out() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let text = refused(&format!("redis://:secret@{address}")).await;
    assert!(text.contains(&address), "{text}");
}

#[tokio::test]
async fn connecting_without_the_password_says_what_is_missing() {
    for flavor in Flavor::ALL {
        let server = Server::start_with(flavor, &["--requirepass", "the-right-secret"]).await;
        let address = format!("127.0.0.1:{}", server.port());
        for user in ["", ":the-wrong-secret@", "somebody:the-right-secret@"] {
            let text = refused(&format!("redis://{user}{address}")).await;
            assert!(text.contains(&address) && text.contains("password"), "{text}");
        }
        let backend = Backend::connect(&format!("redis://:the-right-secret@{address}")).await.unwrap();
        assert!(!format!("{backend:?}").contains("secret"));
        let cache: Cache<Product> = products(&backend);
        assert!(cache.get("p-001", Primary::of(loaf(1)).loader()).await.unwrap().is_some());
        assert!(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());
        assert!(!format!("{cache:?} {:?}", Backend::builder("redis://:secret@x")).contains("secret"));
    }
}

#[tokio::test]
async fn a_refused_connection_is_tried_again() {
    for flavor in Flavor::ALL {
        let server = Server::start_with(flavor, &["--requirepass", "secret"]).await;
        let backend = Backend::connect_lazy(&server.url()).unwrap();
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Bypassed);
        let operator = redis::Client::open(format!("redis://:secret@127.0.0.1:{}", server.port())).unwrap();
        let mut operator = operator.get_multiplexed_async_connection().await.unwrap();
        redis::cmd("CONFIG").arg(&["SET", "requirepass", ""]).exec_async(&mut operator).await.unwrap();
        comes_back(&cache, &primary, Duration::from_secs(5)).await;
    }
}

#[tokio::test]
async fn a_url_that_makes_no_sense_is_refused() {
    for (url, said) in [
        ("", "no scheme"),
        ("127.0.0.1:6379", "no scheme"),
        ("http://127.0.0.1", "unknown scheme"),
        ("memory://somewhere", "nothing to add"),
        ("redis://", "makes no sense"),
        ("redis://127.0.0.1:99999", "makes no sense"),
        ("redis://127.0.0.1:6379/first", "database number"),
        ("redis://:a@secret?b@127.0.0.1", "%3F"),
        ("redis://:secret/b@127.0.0.1", "%2F"),
        ("redis://user:secret@:6379", "makes no sense"),
        ("redis+cluster://", "makes no sense"),
        ("redis+cluster://127.0.0.1:6379,", "makes no sense"),
        ("redis+cluster://user:secret@127.0.0.1:6379,:6380", "makes no sense"),
        ("redis+cluster://127.0.0.1:6379,127.0.0.1:6380/1", "database 0"),
        ("redis+cluster://:a/secret@127.0.0.1", "%2F"),
        ("rediss://:a@secret?b@127.0.0.1", "%3F"),
        ("user:secret@127.0.0.1", "no scheme"),
    ] {
        let text = refused(url).await;
        assert!(text.contains(said), "{url}: {text}");
        assert!(matches!(Backend::connect_lazy(url), Err(Error::Config { .. })));
    }
}

#[tokio::test]
async fn a_backend_is_shown_as_its_url_names_it_without_the_user() {
    for (url, shown) in [
        ("redis://user:secret@localhost/1", "redis://localhost:6379"),
        ("redis://[::1]:7000", "redis://[::1]:7000"),
        ("rediss://:secret@[::1]", "rediss://[::1]:6379"),
        ("unix:///run/redis.sock?pass=secret", "unix:///run/redis.sock"),
        ("redis+cluster://:secret@a:1,[::1]:2", "redis+cluster://a:1,[::1]:2"),
        ("rediss+cluster://a", "rediss+cluster://a:6379"),
        ("rediss+sentinel://a,[::1]:2/mymaster/1", "rediss+sentinel://a:26379,[::1]:2/mymaster"),
    ] {
        assert_eq!(Backend::connect_lazy(url).unwrap().to_string(), shown);
    }
}

#[test]
fn outside_of_a_runtime_calls_are_errors_and_no_panics() {
    assert!(matches!(Backend::connect_lazy("memory://"), Err(Error::Config { .. })));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let backend = runtime.block_on(Backend::connect("memory://")).unwrap();
    let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut get = Box::pin(get(&cache, primary.loader()));
    assert!(matches!(get.as_mut().poll(&mut context), std::task::Poll::Ready(Err(Error::Config { .. }))));
    let none = |_ids: Vec<String>| async { Ok::<_, BoxError>(Vec::new()) };
    let mut get_many = Box::pin(cache.get_many(["p-001"], none));
    let std::task::Poll::Ready(answers) = get_many.as_mut().poll(&mut context) else { panic!("it waits") };
    assert!(matches!(answers[0], Err(Error::Config { .. })));
    let mut invalidate = Box::pin(cache.invalidate("p-001"));
    assert!(matches!(invalidate.as_mut().poll(&mut context), std::task::Poll::Ready(Err(Error::Config { .. }))));
}
