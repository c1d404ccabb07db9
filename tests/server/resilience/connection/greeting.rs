//! The start of a connection: commands that servers and proxies may refuse, full servers and passwords.

use cache_aside::{Backend, Cache, NearCache, Outcome, TrackerState};
use redis::aio::MultiplexedConnection;
use testkit::fake::{Answer, Fake};
use testkit::server::{Flavor, Server, client, free_port};

use super::{LIMIT, chain};
use crate::near::{near, warm};
use crate::support::fixture::{
    Primary, Product, builder, comes_back, connect, get, loaf, lookup, on_every_server, products, until,
};

/// Checks that gets are hits and that writes are applied.
async fn works(cache: &Cache<Product>, primary: &Primary, what: &str) {
    assert_eq!(lookup(cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded, "{what}");
    for _ in 0..20 {
        assert_eq!(lookup(cache, primary.loader()).await.unwrap().outcome, Outcome::Hit, "{what}");
    }
    assert!(cache.update_field("p-001", Product::FIELDS.stock, 7).await.unwrap(), "{what}");
    assert_eq!(get(cache, primary.loader()).await.unwrap().unwrap().stock, 7, "{what}");
    assert!(cache.invalidate("p-001").await.unwrap(), "{what}");
    assert_eq!(lookup(cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded, "{what}");
    assert_eq!(cache.stats().bypasses, 0, "{what}");
}

/// The number of 100 invalidations that succeed.
async fn invalidations(cache: &Cache<Product>) -> usize {
    let mut succeeded = 0;
    for _ in 0..100 {
        match cache.invalidate("p-001").await {
            Ok(_) => succeeded += 1,
            Err(error) => println!("{}", chain(&error)),
        }
    }
    succeeded
}

async fn as_user(server: &Server, password: &str) -> MultiplexedConnection {
    client(&with_password(&server.url(), password)).await.unwrap()
}

fn with_password(url: &str, password: &str) -> String {
    url.replace("redis://", &format!("redis://:{password}@"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_connections_have_the_name_that_is_set() {
    for (flavor, name) in Flavor::ALL.into_iter().zip([None, Some("billing"), Some("billing/v1.2-{a}!")]) {
        let server = Server::start(flavor).await;
        let builder = Backend::builder(&server.url()).operation_timeout(LIMIT);
        let builder = match name {
            Some(name) => builder.client_name(name),
            None => builder,
        };
        let cache = near(&builder.connect().await.unwrap());
        let primary = Primary::of(loaf(1));
        warm(&cache, &primary).await;
        cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap();
        let mut operator = server.client().await;
        let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut operator).await.unwrap();
        let shown = format!(" name={} ", name.unwrap_or("cache-aside"));
        assert_eq!(clients.matches(&shown).count(), 3, "{shown}: {clients}");
    }
}

/// These are the words of servers and proxies. The other replies are no answers to `ROLE` at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_role_in_any_words_is_used() {
    let server = Server::start(Flavor::Redis70).await;
    for answer in [
        "-NOPERM this user has no permissions to run the 'role' command\r\n",
        "-ERR unknown command 'ROLE', with args beginning with:\r\n",
        "-ERR unsupported command 'ROLE'\r\n",
        "-ERR unknown or unsupported command\r\n",
        "-Err unknown or unsupported command 'role'\r\n",
        "-invalid request\r\n",
        "+OK\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "*0\r\n",
        "*1\r\n:7\r\n",
        "*1\r\n$7\r\nprimary\r\n",
    ] {
        let rule = move |command: &str| if command == "ROLE" { Answer::Fake(answer) } else { Answer::Server };
        let fake = Fake::before(server.port(), rule).await;
        let (cache, primary) = (products(&connect(&fake.url()).await), Primary::of(loaf(1)));
        works(&cache, &primary, answer).await;
        cache.invalidate("p-001").await.unwrap();
    }
}

/// Envoy, for example, supports commands with keys, and few others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_refuses_the_whole_greeting_is_used() {
    let server = Server::start(Flavor::Redis70).await;
    let fake = Fake::before(server.port(), |command| match command {
        "ROLE" | "INFO" | "CLIENT" | "HELLO" => Answer::Fake("-ERR unsupported command\r\n"),
        _ => Answer::Server,
    });
    let fake = fake.await;
    let (cache, primary) = (products(&connect(&fake.url()).await), Primary::of(loaf(1)));
    works(&cache, &primary, "greeting refused").await;
}

/// The server is a replica, and can't say so: the first write shows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_server_that_refuses_role_is_left_after_a_refused_write() {
    let (old, new) = (Server::start(Flavor::Redis70).await, Server::start(Flavor::Valkey91).await);
    let fake = Fake::before(old.port(), |command| match command {
        "ROLE" => Answer::Fake("-ERR unsupported command 'ROLE'\r\n"),
        _ => Answer::Server,
    });
    let fake = fake.await;
    let (cache, primary) = (products(&connect(&fake.url()).await), Primary::of(loaf(1)));
    cache.get("p-001", primary.loader()).await.unwrap();
    assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Hit);
    let replica_of = ["127.0.0.1".to_owned(), free_port().to_string()];
    redis::cmd("REPLICAOF").arg(&replica_of).exec_async(&mut old.client().await).await.unwrap();

    let before = fake.accepted();
    primary.put(loaf(2));
    println!("{}", chain(&cache.invalidate("p-001").await.unwrap_err()));
    assert_eq!(get(&cache, primary.loader()).await.unwrap().unwrap().stock, 2, "the invalidation is pending");
    fake.move_to(new.port());
    until(LIMIT, "writes don't arrive", async || cache.invalidate("p-001").await.is_ok()).await;
    assert!(fake.accepted() > before);
    until(LIMIT, "reads don't hit", async || {
        let found = lookup(&cache, primary.loader()).await.unwrap();
        assert_eq!(found.value.unwrap().stock, 2);
        found.outcome == Outcome::Hit
    })
    .await;
    let mut operator = new.client().await;
    assert!(redis::cmd("EXISTS").arg("cache:billing:product:p-001").query_async::<bool>(&mut operator).await.unwrap());
    assert!(cache.update_field("p-001", Product::FIELDS.stock, 3).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_accepts_no_more_clients_is_used_over_the_existing_connection() {
    for flavor in Flavor::ALL {
        let server = Server::start_with(flavor, &["--requirepass", "secret"]).await;
        let mut operator = as_user(&server, "secret").await;
        // The operator and one more.
        redis::cmd("CONFIG").arg(&["SET", "maxclients", "2"]).exec_async(&mut operator).await.unwrap();
        let (cache, primary) =
            (products(&connect(&with_password(&server.url(), "secret")).await), Primary::of(loaf(1)));
        cache.get("p-001", primary.loader()).await.unwrap();
        assert_eq!(invalidations(&cache).await, 100, "{flavor:?}");

        // An update needs an exclusive connection. There are more updates than the breaker's threshold.
        for number in 0..8 {
            match cache.update_field(format!("u-{number}"), Product::FIELDS.stock, 2).await {
                Ok(updated) => assert!(!updated),
                Err(error) => assert!(!chain(&error).contains("password"), "{}", chain(&error)),
            }
        }
        until(LIMIT, "invalidations stay pending", async || cache.pending().is_empty()).await;
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
        for _ in 0..20 {
            assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Hit);
        }
        assert_eq!(invalidations(&cache).await, 100, "{flavor:?}");
        assert!(cache.pending().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_the_server_does_not_ask_for_is_no_error() {
    on_every_server(async |server, _| {
        let backend = connect(&with_password(&server.url(), "secret")).await;
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        works(&cache, &primary, "a password too much").await;
        assert_eq!(invalidations(&cache).await, 100);
    })
    .await;
}

#[tokio::test]
async fn a_connection_refused_for_its_password_is_tried_again() {
    for flavor in Flavor::ALL {
        let server = Server::start_with(flavor, &["--requirepass", "secret"]).await;
        let backend = Backend::connect_lazy(&server.url()).unwrap();
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Bypassed);
        let mut operator = as_user(&server, "secret").await;
        redis::cmd("CONFIG").arg(&["SET", "requirepass", ""]).exec_async(&mut operator).await.unwrap();
        comes_back(&cache, &primary, LIMIT).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_connection_has_the_name_of_the_library() {
    on_every_server(async |server, backend| {
        let cache = builder(&backend).near_cache(NearCache::entries(100)).build().unwrap();
        let primary = Primary::of(loaf(1));
        until(LIMIT, "no tracker is live", async || cache.stats().tracker == TrackerState::Live).await;
        get(&cache, primary.loader()).await.unwrap();
        assert!(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());
        let mut operator = server.client().await;
        redis::cmd("CLIENT").arg(&["SETNAME", "operator"]).exec_async(&mut operator).await.unwrap();
        let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut operator).await.unwrap();
        let ours: Vec<_> = clients.lines().filter(|client| !client.contains(" name=operator ")).collect();
        println!("{ours:#?}");
        assert!(ours.len() >= 3, "one for all steps, one for the update, one for the near cache");
        assert!(ours.iter().all(|client| client.contains(" name=cache-aside ")), "{ours:#?}");
    })
    .await;
}
